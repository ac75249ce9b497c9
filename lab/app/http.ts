/** The HTTP application: it says what it saw, above all from which address the client came. */
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from '../../lib/plain-http.ts'

/** The bytes of `GET /bytes/N`: this block over and over, so that both ends can know what was meant. */
export const BLOCK: Buffer = Buffer.from(
  Array.from({ length: 65_536 }, (_, at) => (at * 31 + (at >> 8)) & 0xff),
)

const MAX_BYTES = 2 ** 40
const MAX_DELAY_MS = 60_000

/** What every answer but `/bytes/N` is, as JSON. */
export interface Seen {
  readonly pod: string
  readonly namespace: string
  readonly node: string
  /** The client's address and port as this end of the connection sees them. */
  readonly client: string
  /** The address that the client called, as this end sees it. */
  readonly server: string
  readonly method: string
  readonly path: string
  readonly headers: NodeJS.Dict<string | string[]>
  /** Of the request's body. */
  readonly bytes: number
  readonly sha256: string
}

/** `/delay/MS` answers later; `/status/CODE` with that status; every other path at once with 200. */
export function httpServer(): Server {
  const server = createServer((request, response) => {
    request.on('error', () => undefined)
    response.on('error', () => undefined)
    const [, verb = '', argument = ''] = (request.url ?? '/').split('/')
    const number = /^\d{1,15}$/.test(argument) ? Number(argument) : undefined
    if (verb === 'bytes' && number !== undefined && number <= MAX_BYTES) {
      request.resume()
      sendBytes(response, number)
    } else if (verb === 'delay' && number !== undefined && number <= MAX_DELAY_MS)
      setTimeout(() => describe(request, response, 200), number)
    else if (verb === 'status' && number !== undefined && number >= 200 && number <= 599)
      describe(request, response, number)
    else describe(request, response, 200)
  })
  // A mesh must cope with connections that idle as long as they like.
  server.keepAliveTimeout = 0
  server.requestTimeout = 0
  server.headersTimeout = 60_000
  return server
}

function describe(request: IncomingMessage, response: ServerResponse, status: number): void {
  const hash = createHash('sha256')
  let bytes = 0
  request.on('data', (chunk: Buffer) => {
    hash.update(chunk)
    bytes += chunk.length
  })
  request.once('end', () => {
    const { socket } = request
    const seen: Seen = {
      pod: process.env['POD_NAME'] ?? '',
      namespace: process.env['POD_NAMESPACE'] ?? '',
      node: process.env['NODE_NAME'] ?? '',
      client: endpoint(socket.remoteAddress, socket.remotePort),
      server: endpoint(socket.localAddress, socket.localPort),
      method: request.method ?? '',
      path: request.url ?? '',
      headers: request.headers,
      bytes,
      sha256: hash.digest('hex'),
    }
    response.writeHead(status, { 'content-type': 'application/json' })
    response.end(`${JSON.stringify(seen, undefined, 2)}\n`)
  })
}

function sendBytes(response: ServerResponse, total: number): void {
  response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': total })
  let left = total
  const more = () => {
    while (left > 0 && !response.destroyed) {
      const part = left < BLOCK.length ? BLOCK.subarray(0, left) : BLOCK
      left -= part.length
      if (!response.write(part)) {
        response.once('drain', more)
        return
      }
    }
    response.end()
  }
  more()
}

function endpoint(address: string | undefined, port: number | undefined): string {
  const ip = (address ?? '').replace(/^::ffff:/, '')
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`
}
