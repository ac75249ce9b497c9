/** The entry of a data-plane thread. Imports neither gRPC nor X.509 libraries: every megabyte is paid per thread. */
import { parentPort, workerData } from 'node:worker_threads'
import type { ProxyOptions } from '../proxy/pod-context.ts'
import { DataPlane } from './data-plane.ts'
import type { AccessLogSettings, ToThread } from './messages.ts'
import { Outbox } from './outbox.ts'

/** What a thread is given at its start. */
export interface ThreadOptions {
  readonly proxy: ProxyOptions
  readonly accessLog: AccessLogSettings
}

const COUNTERS_EVERY_MS = 2000
const TIDY_EVERY_MS = 600_000

const port = parentPort
if (!port) throw new Error('this file is the entry of a worker thread')
const { proxy, accessLog } = workerData as ThreadOptions
const outbox = new Outbox(accessLog, message => port.postMessage(message))
const plane = new DataPlane(proxy, outbox.send, outbox)
port.on('message', (message: ToThread) => {
  if (message.type === 'log-level') outbox.logLevel = message.level
  else plane.handle(message)
})
setInterval(() => outbox.send(plane.counters()), COUNTERS_EVERY_MS)
setInterval(() => outbox.tidy(), TIDY_EVERY_MS)
port.postMessage({ type: 'ready' })
