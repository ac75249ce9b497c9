/**
 * A client that runs inside a pod and keeps one connection to an echo server busy: a line every 20 ms, each of which
 * must come back. Ends with one line of JSON: how the connection ended, and how many lines came back. SIGTERM ends it
 * in order.
 *
 * usage: node hold.ts HOST PORT
 */
import { connect } from 'node:net'
import { errorCode } from '../../lib/errors.ts'

export interface HoldResult {
  /** `closed`: by this end, on SIGTERM. `end`: the other end said FIN. `reset`: RST, or another error of the kernel's. */
  how: 'closed' | 'end' | 'reset'
  error?: string
  echoed: number
}

const EVERY_MS = 20
const [host = '', port = ''] = process.argv.slice(2)
const socket = connect({ host, port: Number(port), noDelay: true })
let echoed = 0
let isDone = false

function finish(result: Omit<HoldResult, 'echoed'>): void {
  if (isDone) return
  isDone = true
  process.stdout.write(`${JSON.stringify({ ...result, echoed })}\n`, () => process.exit(0))
}

socket.on('error', err => finish({ how: 'reset', error: errorCode(err) ?? err.message }))
socket.on('end', () => finish({ how: 'end' }))
socket.on('connect', () => {
  process.stdout.write('connected\n')
  setInterval(() => socket.write(`${Date.now()}\n`), EVERY_MS)
})
socket.on('data', (chunk: Buffer) => {
  for (const byte of chunk) if (byte === 0x0a) echoed++
})
process.on('SIGTERM', () => {
  finish({ how: 'closed' })
  socket.end()
})
