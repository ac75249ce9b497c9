/** The sending thread of the open loop: sleeps until a message is due, writes it, notes how late it was. */
import { writeSync } from 'node:fs'
import { workerData } from 'node:worker_threads'

export interface PacerOptions {
  /** Connected sockets, taken in turn. */
  readonly fds: readonly number[]
  readonly bytes: number
  readonly count: number
  readonly intervalNs: number
  /** When the first message is due, CLOCK_MONOTONIC. */
  readonly firstNs: bigint
  /** How late each message left, ms; shared memory. */
  readonly lateness: Float64Array
}

const { fds, bytes, count, intervalNs, firstNs, lateness } = workerData as PacerOptions
const payload = Buffer.alloc(bytes, 'o')
const nothing = new Int32Array(new SharedArrayBuffer(4))

for (let at = 0; at < count; at++) {
  const dueNs = at * intervalNs
  const waitMs = (dueNs - Number(process.hrtime.bigint() - firstNs)) / 1e6
  if (waitMs > 0) Atomics.wait(nothing, 0, 0, waitMs)
  lateness[at] = (Number(process.hrtime.bigint() - firstNs) - dueNs) / 1e6
  write(fds[at % fds.length]!)
}

/** The sockets do not block. One whose buffer is full (of several MB) is asked again: what is late counts as late. */
function write(fd: number): void {
  for (let written = 0; written < bytes;) {
    try {
      written += writeSync(fd, payload, written)
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code !== 'EAGAIN') throw err
      Atomics.wait(nothing, 0, 0, 1)
    }
  }
}
