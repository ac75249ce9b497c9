/** HTTP over Unix sockets, which is how the lab's parts and its command talk: one request, one answer of text. */
import { CulvertError } from '../lib/errors.ts'
import { request } from '../lib/plain-http.ts'

export interface UnixRequest {
  /** @default GET */
  readonly method?: string
  /** With its query. */
  readonly path: string
  readonly body?: string
  /** Whole exchange, ms. @default 10000 */
  readonly timeoutMs?: number
}

export interface UnixResponse {
  readonly status: number
  readonly body: string
}

/** Asks whoever serves the socket. Throws `UNREACHABLE` when nobody does, `TIMEOUT` when no answer comes. */
export function requestUnix(socketPath: string, options: UnixRequest): Promise<UnixResponse> {
  const { method = 'GET', path, body, timeoutMs = 10_000 } = options
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, method, path, agent: false, headers: { connection: 'close' } })
    const timer = setTimeout(() => {
      reject(
        new CulvertError('TIMEOUT', `no answer from ${socketPath} to ${method} ${path} in ${timeoutMs} ms`),
      )
      asked.destroy()
    }, timeoutMs)
    const fail = (err: Error) => {
      clearTimeout(timer)
      reject(new CulvertError('UNREACHABLE', `${socketPath} does not answer`, { cause: err }))
    }
    asked.on('error', fail)
    asked.on('response', response => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => void chunks.push(chunk))
      response.on('error', fail)
      response.on('end', () => {
        clearTimeout(timer)
        resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() })
      })
    })
    asked.end(body)
  })
}
