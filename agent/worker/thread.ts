/** The entry of a data-plane thread. Imports neither gRPC nor X.509 libraries: every megabyte is paid per thread. */
import { parentPort, workerData } from 'node:worker_threads'
import type { ProxyOptions } from '../proxy/pod-context.ts'
import { DataPlane } from './data-plane.ts'
import type { ToWorker } from './messages.ts'
import { Outbox } from './outbox.ts'

const COUNTERS_EVERY_MS = 2000

const port = parentPort
if (!port) throw new Error('this file is the entry of a worker thread')
const outbox = new Outbox(message => port.postMessage(message))
const plane = new DataPlane(workerData as ProxyOptions, outbox.send)
port.on('message', (message: ToWorker) => plane.handle(message))
setInterval(() => port.postMessage(plane.counters()), COUNTERS_EVERY_MS)
port.postMessage({ type: 'ready' })
