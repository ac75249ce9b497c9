/** The events of a watch (meta/v1 `WatchEvent`): one JSON object a line. */
import { CulvertError } from '../../lib/errors.ts'
import { printable } from '../../lib/printable.ts'
import { statusError } from './api-client.ts'

export type WatchEvent =
  | { readonly type: 'put' | 'delete'; readonly object: unknown }
  /** Nothing happened up to its resource version. */
  | { readonly type: 'bookmark'; readonly object: unknown }

/** What every object of the API says of itself. Texts that are not there are empty. */
export interface ObjectHead {
  /** `namespace/name`, or `name` of what lives in no namespace. */
  readonly key: string
  readonly resourceVersion: string
}

const TYPES: Readonly<Record<string, WatchEvent['type']>> = {
  ADDED: 'put',
  MODIFIED: 'put',
  DELETED: 'delete',
  BOOKMARK: 'bookmark',
}

/** Throws the `ApiError` that an event of type ERROR tells of, `KUBERNETES` for what is no event. `what` is for messages. */
export function parseWatchEvent(line: string, what: string): WatchEvent {
  let event: { type?: unknown; object?: unknown } | null
  try {
    event = JSON.parse(line) as typeof event
  } catch {
    event = null
  }
  const { type, object } = event ?? {}
  if (type === 'ERROR') throw statusError(object, what)
  const known = typeof type === 'string' && Object.hasOwn(TYPES, type) ? TYPES[type] : undefined
  if (known === undefined)
    throw new CulvertError('KUBERNETES', `${what}: '${printable(line, 60)}' is no event`)
  return { type: known, object }
}

export function headOf(object: unknown): ObjectHead {
  const metadata = (object as { metadata?: unknown } | null | undefined)?.metadata
  const { name, namespace, resourceVersion } = (metadata ?? {}) as Record<string, unknown>
  const text = (value: unknown): string => (typeof value === 'string' ? value : '')
  return {
    key: text(namespace) === '' ? text(name) : `${text(namespace)}/${text(name)}`,
    resourceVersion: text(resourceVersion),
  }
}
