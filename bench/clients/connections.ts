/**
 * New connections: connect, one byte there and back, close, and again; several of these loops at a time.
 *
 * usage: node connections.ts HOST PORT CONCURRENCY SECONDS
 * Prints how many were carried, in how many seconds, and how long one took until its byte was back (µs).
 */
import { connect } from 'node:net'
import { argument, host, latenciesOf, stop, tell } from './program.ts'

const port = argument(1)
const concurrency = argument(2)
const seconds = argument(3)

const beganMs = performance.now()
const endMs = beganMs + seconds * 1000
let carried = 0
const timesMs: number[] = []
let running = concurrency

function next(): void {
  const startedMs = performance.now()
  const socket = connect({ host: host(), port, noDelay: true })
  let isCarried = false
  socket.on('error', stop)
  socket.once('connect', () => socket.write('x'))
  socket.once('data', () => {
    isCarried = true
    carried++
    timesMs.push(performance.now() - startedMs)
    socket.destroy()
  })
  socket.once('close', () => {
    if (!isCarried) stop('a connection was ended before its byte was back')
    if (performance.now() < endMs) next()
    else if (--running === 0) finish()
  })
}

function finish(): void {
  const seconds = (performance.now() - beganMs) / 1000
  tell({ carried, seconds, latencies: latenciesOf(timesMs) })
}

for (let loop = 0; loop < concurrency; loop++) next()
