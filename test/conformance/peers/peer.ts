/**
 * A peer of HBONE tunnels made of Node's own HTTP/2, which is nghttp2: client or server, told what to do by lines of JSON
 * (see foreign-peer.ts).
 */
import { createHash, randomBytes } from 'node:crypto'
import http2 from 'node:http2'
import { connect as connectTcp } from 'node:net'
import { createInterface } from 'node:readline'
import { connect as connectTls } from 'node:tls'
import type { ForeignEvent, ForeignOp } from '../../helpers/foreign-peer.ts'

interface Start {
  readonly role: 'client' | 'server'
  readonly address: string
  readonly key: string
  readonly chain: string
  readonly roots: string
  readonly maxStreams: number
}

type Stream = http2.ClientHttp2Stream | http2.ServerHttp2Stream

const WINDOWS = { initialWindowSize: 1 << 20 }
const CONNECTION_WINDOW = 16 << 20
const CHUNK_BYTES = 65_536

const streams = new Map<number, Stream>()

function tell(event: ForeignEvent): void {
  process.stdout.write(`${JSON.stringify(event)}\n`)
}

function watch(id: number, stream: Stream): void {
  const hash = createHash('sha256')
  let bytes = 0
  let hasEnded = false
  stream.on('error', () => undefined)
  stream.on('data', (chunk: Buffer) => {
    if (bytes === 0) tell({ event: 'data', id })
    bytes += chunk.length
    hash.update(chunk)
  })
  stream.on('end', () => {
    if (stream.rstCode !== 0 || stream.aborted) return
    hasEnded = true
    tell({ event: 'end', id, bytes, sha256: hash.digest('hex') })
  })
  stream.on('close', () => {
    const code = stream.rstCode
    if (!hasEnded || code !== http2.constants.NGHTTP2_NO_ERROR) tell({ event: 'reset', id, code })
  })
}

/** Streams that have something to send, and what is to be done after it. */
const sending = new Map<Stream, () => void>()

function send(id: number, stream: Stream, total: number): void {
  const hash = createHash('sha256')
  let left = total
  sending.set(stream, () => undefined)
  const more = (): void => {
    while (left > 0) {
      const chunk = randomBytes(Math.min(left, CHUNK_BYTES))
      hash.update(chunk)
      left -= chunk.length
      const isLast = left === 0
      const isTaken = stream.write(chunk, err => {
        if (isLast && !err) tell({ event: 'sent', id, bytes: total, sha256: hash.digest('hex') })
      })
      if (!isTaken && !isLast) {
        stream.once('drain', more)
        return
      }
    }
    const then = sending.get(stream)
    sending.delete(stream)
    then?.()
  }
  more()
}

function end(stream: Stream): void {
  if (sending.has(stream)) sending.set(stream, () => stream.end())
  else stream.end()
}

function common(line: ForeignOp & { id: number }): void {
  const stream = streams.get(line.id)!
  if (line.op === 'answer') {
    const server = stream as http2.ServerHttp2Stream
    server.respond({ ':status': line.status }, { endStream: line.status !== 200, sendDate: false } as never)
  } else if (line.op === 'send') send(line.id, stream, line.bytes)
  else if (line.op === 'end') end(stream)
  else if (line.op === 'pause') stream.pause()
  else if (line.op === 'resume') stream.resume()
  else if (line.op === 'echo') {
    stream.on('data', (chunk: Buffer) => stream.write(chunk))
    stream.on('end', () => stream.end())
  } else if (line.op === 'reset') {
    stream.destroy(new Error('told to')) // close(code) would end it in order first
  }
}

async function asClient(start: Start, host: string, port: number): Promise<(line: ForeignOp) => void> {
  const open = async (): Promise<http2.ClientHttp2Session> => {
    const tls = { key: start.key, cert: start.chain, ca: start.roots, ALPNProtocols: ['h2'] }
    const socket = connectTls({
      ...tls,
      socket: connectTcp({ host, port, noDelay: true }),
      servername: '',
      checkServerIdentity: () => undefined, // identities are URIs
    })
    const session = http2.connect(`https://${start.address}`, {
      createConnection: () => socket,
      settings: WINDOWS,
    })
    session.on('error', err => tell({ event: 'failed', error: err.message }))
    session.on('goaway', code => tell({ event: 'goaway', code }))
    await new Promise(resolve => session.once('connect', resolve))
    session.setLocalWindowSize(CONNECTION_WINDOW)
    return session
  }
  let session = await open()
  const connect = async (id: number, authority: string): Promise<void> => {
    if (session.closed || session.destroyed) session = await open()
    const stream = session.request(
      { ':method': 'CONNECT', ':authority': authority, forwarded: 'for="10.9.9.9:1"' },
      { endStream: false },
    )
    streams.set(id, stream)
    stream.on('response', headers => tell({ event: 'status', id, status: headers[':status'] ?? 0 }))
    watch(id, stream)
  }
  return line => {
    if (line.op === 'connect') void connect(line.id, line.authority)
    else if (line.op === 'goaway') session.close()
    else common(line)
  }
}

async function asServer(start: Start, host: string, port: number): Promise<(line: ForeignOp) => void> {
  const server = http2.createSecureServer({
    key: start.key,
    cert: start.chain,
    ca: start.roots,
    requestCert: true,
    settings: { ...WINDOWS, maxConcurrentStreams: start.maxStreams },
  })
  const sessions = new Set<http2.ServerHttp2Session>()
  server.on('session', session => {
    sessions.add(session)
    session.setLocalWindowSize(CONNECTION_WINDOW)
    session.on('close', () => sessions.delete(session))
    session.on('error', () => undefined)
  })
  let last = 0
  server.on('stream', (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => {
    const id = ++last
    streams.set(id, stream)
    tell({ event: 'request', id, authority: headers[':authority'] ?? '' })
    watch(id, stream)
  })
  await new Promise<void>(resolve => server.listen(port, host, resolve))
  return line => {
    if (line.op === 'goaway') for (const session of sessions) session.close()
    else common(line)
  }
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const start = JSON.parse((await lines.next()).value as string) as Start
const colon = start.address.lastIndexOf(':')
const [host, port] = [start.address.slice(0, colon), start.address.slice(colon + 1)]
const handle = await (start.role === 'client' ? asClient : asServer)(start, host, Number(port))
tell({ event: 'ready' })
for (let next = await lines.next(); !next.done; next = await lines.next())
  handle(JSON.parse(next.value) as ForeignOp)
process.exit(0)
