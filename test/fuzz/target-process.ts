/** The data plane under fire, with one thing more than the tests' own: it counts what is alive on its heap. */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { queryObjects } from 'node:v8'
import { ClientSession } from '../../agent/hbone/client.ts'
import { ServerSession } from '../../agent/hbone/server.ts'
import { Tunnel } from '../../agent/hbone/tunnel.ts'
import { Connection } from '../../agent/proxy/connection.ts'
import '../helpers/data-plane-process.ts'

/** What nobody holds any more is not counted: the heap is collected first. */
export interface LiveObjects {
  readonly sessions: number
  readonly tunnels: number
  readonly connections: number
  readonly timers: number
  /** The longest that the event loop was away, whoever had the processor, since the last question, ms. */
  readonly longestAwayMs: number
}

const delays = monitorEventLoopDelay({ resolution: 10 })
delays.enable()

const timer = setTimeout(() => undefined, 0)
const Timeout = timer.constructor as new () => unknown
clearTimeout(timer)

function liveObjects(): LiveObjects {
  const longestAwayMs = delays.max / 1e6
  const counts = {
    sessions: count(ClientSession) + count(ServerSession),
    tunnels: count(Tunnel),
    connections: count(Connection),
    timers: count(Timeout),
  }
  setImmediate(() => delays.reset()) // not before the hold of this question has been noted
  return { ...counts, longestAwayMs }
}

function count(type: abstract new (...args: never[]) => unknown): number {
  return queryObjects(type, { format: 'count' })
}

process.on('message', (message: { type: string }) => {
  if (message.type === 'objects' && process.connected)
    process.send!({ type: 'objects', objects: liveObjects() }, () => undefined)
})
