/**
 * Closed loop: one connection, N bytes there and the same N back, the next when they are back. What is timed is from the
 * write to the last byte.
 *
 * usage: node round-trips.ts HOST PORT BYTES SECONDS WARM-UP-SECONDS
 * Prints the latencies (µs) of what came after the warm-up, and in `total` how many there were with it.
 */
import { argument, dial, latenciesOf, stop, tell } from './program.ts'

const bytes = argument(2)
const seconds = argument(3)
const warmUpSeconds = argument(4)

const socket = await dial(argument(1), stop)
const payload = Buffer.alloc(bytes, 'r')
const timesMs: number[] = []
const beganMs = performance.now()
const measuredFromMs = beganMs + warmUpSeconds * 1000
const endMs = measuredFromMs + seconds * 1000
let total = 0
let missing = 0
let sentMs = 0

function send(): void {
  missing = bytes
  sentMs = performance.now()
  socket.write(payload)
}

socket.on('data', chunk => {
  missing -= chunk.length
  if (missing > 0) return
  const nowMs = performance.now()
  total++
  if (sentMs >= measuredFromMs) timesMs.push(nowMs - sentMs)
  if (nowMs < endMs || timesMs.length === 0) return send()
  tell({ ...latenciesOf(timesMs), total })
  socket.destroy()
})
socket.on('end', () => stop('the connection was ended'))
send()
