/**
 * The pages of a list. All of them are as of one moment, which the server forgets after some minutes: the page after
 * that is refused with 410, and the list has to be begun again.
 */
import { CulvertError } from '../../lib/errors.ts'
import { TooLongError, type ApiClient } from './api-client.ts'
import type { WatchedResource } from './resources.ts'

export interface Page {
  /** As they came. The reader may take them out. */
  readonly items: unknown[]
  /** Of the whole list: where a watch goes on from. */
  readonly resourceVersion: string
}

const MAX_OBJECTS = 500
/** The API server itself gives up after a minute. */
const SILENCE_MS = 60_000

/**
 * Asks for one page after the other, each when the one before has been taken. A page longer than `maxBytes` is asked for
 * with fewer objects. Throws as `ApiClient.get` does, and `KUBERNETES` for an answer that is no list.
 */
export async function* listPages(
  client: ApiClient,
  resource: WatchedResource,
  maxBytes: number,
  signal: AbortSignal,
): AsyncGenerator<Page> {
  let limit = MAX_OBJECTS
  let token = ''
  do {
    const query = { limit: `${limit}`, ...(token !== '' && { continue: token }) }
    let answer: unknown
    try {
      answer = await client.get(resource.path, query, { silenceMs: SILENCE_MS, maxBytes }, signal)
    } catch (err) {
      if (!(err instanceof TooLongError) || limit === 1) throw err
      limit = Math.ceil(limit / 4)
      continue
    }
    const page = readPage(answer, resource)
    answer = undefined
    token = page.token
    yield page
    if (token === '') return
  } while (!signal.aborted)
}

function readPage(answer: unknown, { name }: WatchedResource): Page & { token: string } {
  const { items, metadata } = (answer ?? {}) as { items?: unknown; metadata?: Record<string, unknown> | null }
  const { resourceVersion, continue: token } = metadata ?? {}
  // A list without items is null in some versions.
  if (
    (!Array.isArray(items) && items !== null) ||
    typeof resourceVersion !== 'string' ||
    resourceVersion === ''
  )
    throw new CulvertError('KUBERNETES', `the answer is no list of ${name}`)
  return { items: items ?? [], resourceVersion, token: typeof token === 'string' ? token : '' }
}
