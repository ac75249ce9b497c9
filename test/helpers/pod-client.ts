/**
 * TCP clients that run inside a pod and say in one line of JSON what the application saw of a connection. Like any
 * application they know nothing of a mesh.
 *
 * usage: node pod-client.ts VERB HOST PORT ARGUMENT [MS]
 *
 * | verb | what it does |
 * |---|---|
 * | say TEXT | sends the text and waits for the far end to end the connection |
 * | half TEXT | sends the text, ends its own half, and waits for the far end's |
 * | upload BYTES | sends random bytes, ends its own half; `isSame` says whether the answer is `<bytes> <sha256>` |
 * | abort TEXT | sends the text and resets the connection once it has come back |
 * | many COUNT | that many connections, each of which sends a line; ends them when all lines have come back |
 * | pause TEXT MS | sends the text, and the same a second time after that long; both must come back |
 */
import { createHash, randomBytes } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { errorCode } from '../../lib/errors.ts'

export interface PodClientResult {
  /** How it ended: by the far end's FIN, by a RST (or another error of the kernel's), by itself, or not in time. */
  readonly how: 'end' | 'reset' | 'done' | 'timeout'
  readonly error?: string
  /** What came, cut to 1000 characters. */
  readonly received: string
  readonly ms: number
  readonly isSame?: boolean
  /** Connections whose line came back. */
  readonly answered?: number
}

export type Verb = 'say' | 'half' | 'upload' | 'abort' | 'many' | 'pause'

const LIMIT_MS = 60_000
const CHUNK_BYTES = 65_536

const startedAt = performance.now()
let received = ''

function finish(result: Omit<PodClientResult, 'ms' | 'received'>): void {
  const line: PodClientResult = {
    ...result,
    received: received.slice(0, 1000),
    ms: Math.round(performance.now() - startedAt),
  }
  process.stdout.write(`${JSON.stringify(line)}\n`, () => process.exit(0))
}

function open(host: string, port: number): Socket {
  const socket = connect({ host, port, allowHalfOpen: true, noDelay: true })
  socket.on('error', err => finish({ how: 'reset', error: errorCode(err) ?? err.message }))
  return socket
}

function upload(socket: Socket, total: number): void {
  const hash = createHash('sha256')
  let left = total
  let digest = ''
  const more = () => {
    while (left > 0) {
      const chunk = randomBytes(Math.min(left, CHUNK_BYTES))
      hash.update(chunk)
      left -= chunk.length
      if (!socket.write(chunk)) {
        socket.once('drain', more)
        return
      }
    }
    digest = hash.digest('hex')
    socket.end()
  }
  socket.once('connect', more)
  socket.once('end', () => finish({ how: 'end', isSame: received === `${total} ${digest}\n` }))
}

function many(host: string, port: number, count: number): void {
  let answered = 0
  const sockets = Array.from({ length: count }, (_, number) => {
    const socket = open(host, port)
    const line = `line ${number}\n`
    let text = ''
    socket.once('connect', () => socket.write(line))
    socket.once('end', () => finish({ how: 'end', answered }))
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString()
      if (text !== line || ++answered < count) return
      for (const each of sockets) each.end()
      finish({ how: 'done', answered })
    })
    return socket
  })
}

const [verb, host = '', port = '', argument = ''] = process.argv.slice(2)
setTimeout(() => finish({ how: 'timeout' }), LIMIT_MS)
if (verb === 'many') many(host, Number(port), Number(argument))
else {
  const socket = open(host, Number(port))
  socket.on('data', (chunk: Buffer) => (received += chunk.toString('latin1')))
  if (verb === 'upload') upload(socket, Number(argument))
  else {
    socket.once('connect', () => socket.write(argument))
    socket.once('end', () => finish({ how: 'end' }))
    if (verb === 'half') socket.once('connect', () => socket.end())
    if (verb === 'abort')
      socket.on('data', () => {
        if (received !== argument) return
        socket.resetAndDestroy()
        finish({ how: 'done' })
      })
    if (verb === 'pause') {
      socket.on('data', () => {
        if (received === argument + argument) finish({ how: 'done' })
      })
      setTimeout(() => socket.write(argument), Number(process.argv[6]))
    }
  }
}
