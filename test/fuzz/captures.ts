/**
 * Real sessions, recorded below TLS, that all damage starts from: our own client and server, and Node's `http2` as the
 * other one, which pads, sends trailers and cuts frames as it likes. Every step waits for the one before it, so that
 * the same bytes come out each time.
 */
import { once } from 'node:events'
import {
  connect as connectHttp2,
  constants,
  createServer as createHttp2,
  type ServerHttp2Stream,
} from 'node:http2'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { ClientSession } from '../../agent/hbone/client.ts'
import { DEFAULT_SESSION, type SessionOptions } from '../../agent/hbone/limits.ts'
import { CODE } from '../../agent/hbone/protocol.ts'
import { ServerSession, type ConnectRequest } from '../../agent/hbone/server.ts'
import type { Tunnel } from '../../agent/hbone/tunnel.ts'
import { Scope } from './scope.ts'

export interface Capture {
  readonly name: string
  readonly client: Buffer
  readonly server: Buffer
}

/** The applications that the captured streams are for: `ip:port` of each. */
export interface Authorities {
  readonly echo: string
  readonly sink: string
  readonly slow: string
  readonly reset: string
}

/** The smallest window that the protocol starts with, so that updates are soon due. */
const SMALL: SessionOptions = {
  ...DEFAULT_SESSION,
  streamWindow: 65_535,
  connectionWindow: 131_072,
  maxFrame: 16_384,
}
/** Half of that window: taken as a whole it is given back at once. */
const BULK = Buffer.alloc(32_768, 'bulk')

/** Records every session there is. */
export async function recordCaptures(to: Authorities): Promise<Capture[]> {
  return [
    await record('busy', (near, far) => busySession(near, far, to)),
    await record('large', (near, far) => largeSession(near, far, to)),
    await record('leaving', (near, far) => leavingSession(near, far, to)),
    await record('foreign-client', (near, far) => foreignClient(near, far, to)),
    await record('foreign-server', (near, far) => foreignServer(near, far, to)),
  ]
}

/** Joins two sockets through a third party that writes down what passes. */
async function record(name: string, drive: (near: Socket, far: Socket) => Promise<void>): Promise<Capture> {
  const scope = new Scope()
  const said: { client: Buffer[]; server: Buffer[] } = { client: [], server: [] }
  try {
    const [near, clientSide] = await joined(scope)
    const [serverSide, far] = await joined(scope)
    clientSide.on('data', (chunk: Buffer) => {
      said.client.push(chunk)
      serverSide.write(chunk)
    })
    serverSide.on('data', (chunk: Buffer) => {
      said.server.push(chunk)
      clientSide.write(chunk)
    })
    clientSide.on('end', () => serverSide.end())
    serverSide.on('end', () => clientSide.end())
    await drive(near, far)
  } finally {
    await scope.close()
  }
  return { name, client: Buffer.concat(said.client), server: Buffer.concat(said.server) }
}

async function joined(scope: Scope): Promise<[Socket, Socket]> {
  const server = createServer({ allowHalfOpen: true, noDelay: true })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const near = connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
  near.on('error', () => undefined)
  const [far] = (await once(server, 'connection')) as [Socket]
  far.on('error', () => undefined)
  server.close()
  scope.teardown(() => {
    near.destroy()
    far.destroy()
  })
  return [near, far]
}

/** `constants.PADDING_STRATEGY_ALIGNED` of `node:http2`, whose types do not know it: frames of a multiple of 8 bytes. */
const PADDING_STRATEGY_ALIGNED = 1
/** Node's own would be the time. */
const PING = Buffer.from('12345678')
/** Node's own would be the time too: another session in another second. */
const DATE = 'Tue, 01 Jan 2030 00:00:00 GMT'
const BAGGAGE =
  'k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=client,service.name=client'
const HEADERS = [
  ['baggage', BAGGAGE],
  ['forwarded', 'for="10.77.0.1:40000"'],
  ['traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00'],
] as const

/** Our two sides, and the requests in the order they come. */
class Pair {
  readonly client: ClientSession
  readonly server: ServerSession
  readonly #requests: ConnectRequest[] = []
  #wake: () => void = () => undefined

  constructor(near: Socket, far: Socket, options: SessionOptions) {
    this.server = new ServerSession(far, options, request => {
      this.#requests.push(request)
      this.#wake()
    })
    this.client = new ClientSession(near, options)
  }

  /** Opens a tunnel; the answer is the caller's to give. */
  async ask(authority: string, more: readonly (readonly [string, string])[] = []) {
    const opening = this.client.connect(authority, [...HEADERS, ...more])
    opening.catch(() => undefined) // whoever waits for it hears of it
    if (this.#requests.length === 0) await new Promise<void>(resolve => (this.#wake = resolve))
    return { request: this.#requests.shift()!, opening }
  }

  async open(authority: string): Promise<{ near: End; far: End }> {
    const { request, opening } = await this.ask(authority)
    request.respond(200)
    return { near: new End((await opening).tunnel), far: new End(request.tunnel) }
  }

  /** Everything sent before has been read at the other side. */
  settled(from: 'client' | 'server' = 'client'): Promise<void> {
    return new Promise(resolve => this[from].ping(() => resolve()))
  }
}

/** One end of a tunnel, and what has come. */
class End {
  readonly tunnel: Tunnel
  #bytes = 0
  #watch: () => void = () => undefined
  readonly over: Promise<void>

  constructor(tunnel: Tunnel) {
    this.tunnel = tunnel
    this.over = new Promise(resolve => {
      tunnel.attach({
        data: chunk => {
          this.#bytes += chunk.length
          tunnel.consumed(chunk.length)
          this.#watch()
        },
        end: () => resolve(),
        reset: () => resolve(),
        drain: () => undefined,
      })
    })
  }

  async got(bytes: number): Promise<void> {
    if (this.#bytes < bytes)
      await new Promise<void>(resolve => (this.#watch = () => this.#bytes >= bytes && resolve()))
  }
}

/** Round trips, bulk both ways, ends and resets from either side, refusals, PINGs. */
async function busySession(near: Socket, far: Socket, to: Authorities): Promise<void> {
  const pair = new Pair(near, far, SMALL)
  await pair.client.ready()
  const echo = await pair.open(to.echo)
  for (let round = 1; round <= 5; round++) {
    echo.near.tunnel.write(Buffer.from(`round ${round}\n`))
    await echo.far.got(round * 8)
    echo.far.tunnel.write(Buffer.from(`round ${round}\n`))
    await echo.near.got(round * 8)
  }
  const bulk = await pair.open(to.sink)
  bulk.near.tunnel.write(BULK)
  await bulk.far.got(BULK.length)
  bulk.far.tunnel.write(BULK)
  await bulk.near.got(BULK.length)
  bulk.near.tunnel.end()
  await bulk.far.over
  bulk.far.tunnel.end()
  await bulk.near.over
  await pair.settled()
  const refused = await pair.ask(to.slow)
  refused.request.respond(503, [['culvert-error', 'ECONNREFUSED']])
  await refused.opening
  await pair.settled()
  const aborted = await pair.open(to.echo)
  aborted.near.tunnel.write(Buffer.from('aborted'))
  await aborted.far.got(7)
  aborted.near.tunnel.reset()
  await aborted.far.over
  const broken = await pair.open(to.reset)
  broken.far.tunnel.reset()
  await broken.near.over
  const unanswered = await pair.ask(to.echo)
  unanswered.request.tunnel.reset(CODE.refusedStream)
  await unanswered.opening.catch(() => undefined)
  await pair.settled('server')
  echo.near.tunnel.end()
  await echo.far.over
  echo.far.tunnel.end()
  await echo.near.over
  await pair.settled()
}

/** Headers of several frames, and many streams at once. */
async function largeSession(near: Socket, far: Socket, to: Authorities): Promise<void> {
  const pair = new Pair(near, far, { ...SMALL, maxHeaderList: 64 * 1024 })
  await pair.client.ready()
  const { request, opening } = await pair.ask(to.echo, [['x-long', '!~'.repeat(20_000)]])
  request.respond(200, [['x-long', '#^'.repeat(12_000)]])
  await opening
  const ends: { near: End; far: End }[] = []
  for (const authority of [to.echo, to.sink, to.slow, to.reset, to.echo, to.echo])
    ends.push(await pair.open(authority))
  for (const { near, far } of ends) {
    near.tunnel.write(Buffer.from('to one of many'))
    await far.got(14)
  }
  for (const { near, far } of ends) {
    near.tunnel.end()
    await far.over
    far.tunnel.end()
    await near.over
  }
  await pair.settled()
}

/** Both sides leave in order, a stream being open. */
async function leavingSession(near: Socket, far: Socket, to: Authorities): Promise<void> {
  const pair = new Pair(near, far, DEFAULT_SESSION)
  await pair.client.ready()
  const last = await pair.open(to.echo)
  pair.server.goaway()
  await pair.settled('server')
  last.near.tunnel.write(Buffer.from('the last of it'))
  await last.far.got(14)
  pair.client.goaway()
  await pair.settled()
  last.near.tunnel.end()
  await last.far.over
  last.far.tunnel.end()
  await last.near.over
}

/** Node's client: padding, trailers, SETTINGS in the middle, a GOAWAY. */
async function foreignClient(near: Socket, far: Socket, to: Authorities): Promise<void> {
  const server = new ServerSession(far, DEFAULT_SESSION, request => {
    request.respond(200)
    request.tunnel.attach({
      data: chunk => {
        request.tunnel.consumed(chunk.length)
        request.tunnel.write(chunk)
      },
      end: () => request.tunnel.end(),
      reset: () => undefined,
      drain: () => undefined,
    })
  })
  const client = connectHttp2('http://mesh', {
    createConnection: () => near,
    paddingStrategy: PADDING_STRATEGY_ALIGNED,
    settings: { headerTableSize: 8192, initialWindowSize: 100_000 },
  })
  client.on('error', () => undefined)
  await once(client, 'remoteSettings')
  for (const authority of [to.echo, to.sink]) {
    const stream = client.request(
      { ':method': 'CONNECT', ':authority': authority, 'x-note': 'a foreign peer' },
      { endStream: false, waitForTrailers: true },
    )
    stream.on('error', () => undefined)
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '17' }))
    await once(stream, 'response')
    stream.write('with padding')
    await once(stream, 'data')
    stream.end('and the end')
    stream.resume()
    await new Promise<void>(resolve => stream.once('close', () => resolve())) // reset for its trailers
  }
  await new Promise<void>((resolve, reject) =>
    client.settings({ initialWindowSize: 50_000 }, err => (err ? reject(err) : resolve())),
  )
  await new Promise<void>((resolve, reject) =>
    client.ping(PING, (err: Error | null) => (err ? reject(err) : resolve())),
  )
  client.goaway(constants.NGHTTP2_NO_ERROR, 0, Buffer.from('bye'))
  await new Promise<void>(resolve => server.onClosed(() => resolve()))
  client.destroy()
}

/** Node's server: padding, an informational answer, trailers. */
async function foreignServer(near: Socket, far: Socket, to: Authorities): Promise<void> {
  const server = createHttp2({ paddingStrategy: PADDING_STRATEGY_ALIGNED })
  server.on('sessionError', () => undefined)
  server.on('stream', (stream: ServerHttp2Stream) => {
    stream.on('error', () => undefined)
    stream.additionalHeaders({ ':status': 103 })
    stream.respond({ ':status': 200, server: 'foreign', date: DATE }, { waitForTrailers: true })
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '17' }))
    stream.on('data', (chunk: Buffer) => stream.write(chunk))
    stream.on('end', () => stream.end())
  })
  server.emit('connection', far)
  const client = new ClientSession(near, DEFAULT_SESSION)
  await client.ready()
  for (const authority of [to.echo, to.sink]) {
    const near = new End((await client.connect(authority, HEADERS)).tunnel)
    near.tunnel.write(Buffer.from('to a foreign peer'))
    await near.got(17)
    near.tunnel.end()
    await near.over
  }
  await new Promise<void>(resolve => client.ping(() => resolve()))
  client.destroy()
}
