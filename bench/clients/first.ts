/**
 * Waits for the first connection that the arm under test carries: tries again and again, and asks the server whom it
 * sees. Whoever is between the two calls the server from a port of its own; who is seen from this end's own port has
 * come past it, in plaintext.
 *
 * usage: node first.ts HOST PORT TIMEOUT-SECONDS plain|carried
 * Says `trying`, and then when (CLOCK_MONOTONIC, ns) the server's answer to the first such connection was here.
 */
import { connect } from 'node:net'
import { argument, host, nowNs, stop, tell } from './program.ts'

/** Often enough to time a start to some per cent, seldom enough to leave the processors to those who start. */
const PAUSE_MS = 5

const port = argument(1)
const deadlineMs = performance.now() + argument(2) * 1000
const isPlainWanted = process.argv[5] === 'plain'
let last = 'no connection was answered'

function attempt(): void {
  const socket = connect({ host: host(), port })
  let answer = ''
  let ownPort: number | undefined
  socket.setEncoding('latin1')
  socket.on('error', err => {
    last = err.message
  })
  socket.once('connect', () => {
    ownPort = socket.localPort
  })
  socket.on('data', (text: string) => {
    answer += text
    if (!answer.endsWith('\n')) return
    const isPlain = answer.trim().split(' ')[1] === String(ownPort)
    if (isPlain === isPlainWanted) {
      tell({ atNs: String(nowNs()) })
      process.exit(0)
    }
    last = isPlain ? 'connections come through, but in plaintext' : 'something is between that should not be'
  })
  socket.once('close', () => {
    if (performance.now() > deadlineMs) stop(last)
    setTimeout(attempt, PAUSE_MS)
  })
}

process.stdout.write('trying\n')
attempt()
