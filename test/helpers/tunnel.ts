/** Two HBONE sessions joined by a loopback connection, and what a tunnel received. */
import type { Test } from 'tap'
import { ClientSession, type ConnectResponse } from '../../agent/hbone/client.ts'
import { DEFAULT_SESSION, type SessionOptions } from '../../agent/hbone/limits.ts'
import type { StreamResetError } from '../../agent/hbone/protocol.ts'
import { ServerSession, type ConnectRequest } from '../../agent/hbone/server.ts'
import type { Tunnel } from '../../agent/hbone/tunnel.ts'
import { socketPair } from './tcp.ts'

export interface SessionPair {
  readonly client: ClientSession
  readonly server: ServerSession
  /** Requests in the order they came. */
  readonly requests: ConnectRequest[]
  /** The next request; each call waits for one more. */
  readonly next: () => Promise<ConnectRequest>
}

export async function sessionPair(t: Test, options: Partial<SessionOptions> = {}): Promise<SessionPair> {
  const [near, far] = await socketPair(t)
  const requests: ConnectRequest[] = []
  const waiting: ((request: ConnectRequest) => void)[] = []
  let taken = 0
  const all = { ...DEFAULT_SESSION, ...options }
  const server = new ServerSession(far, all, request => {
    requests.push(request)
    if (waiting.length > 0) {
      taken++
      waiting.shift()!(request)
    }
  })
  const client = new ClientSession(near, all)
  t.teardown(() => {
    client.destroy()
    server.destroy()
  })
  await client.ready()
  const next = () =>
    requests.length > taken
      ? Promise.resolve(requests[taken++]!)
      : new Promise<ConnectRequest>(resolve => waiting.push(resolve))
  return { client, server, requests, next }
}

/** An open tunnel, both ends. */
export async function tunnelPair(
  t: Test,
  options: Partial<SessionOptions> = {},
): Promise<SessionPair & { near: Tunnel; far: Tunnel; response: ConnectResponse }> {
  const pair = await sessionPair(t, options)
  const opening = pair.client.connect('10.0.0.1:80', [])
  const request = await pair.next()
  request.respond(200)
  const { tunnel, response } = await opening
  return { ...pair, near: tunnel, far: request.tunnel, response }
}

/** Collects what a tunnel receives and credits it at once. */
export class Receiver {
  readonly chunks: Buffer[] = []
  bytes = 0
  readonly ended: Promise<'end' | StreamResetError>
  /** Called after each chunk. */
  onData: () => void = () => undefined
  onDrain: () => void = () => undefined

  constructor(tunnel: Tunnel, options: { credit: boolean } = { credit: true }) {
    this.ended = new Promise(resolve => {
      tunnel.attach({
        data: chunk => {
          this.chunks.push(chunk)
          this.bytes += chunk.length
          if (options.credit) tunnel.consumed(chunk.length)
          this.onData()
        },
        end: () => resolve('end'),
        reset: resolve,
        drain: () => this.onDrain(),
      })
    })
  }

  /** Resolves once this many bytes have come. */
  async until(bytes: number): Promise<Buffer> {
    if (this.bytes < bytes)
      await new Promise<void>(resolve => {
        this.onData = () => {
          if (this.bytes >= bytes) resolve()
        }
      })
    return Buffer.concat(this.chunks)
  }
}
