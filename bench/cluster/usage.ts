/**
 * What the processes of pods use and hold, as the kernel counts it; runs on the pods' node, with the node's processes in
 * sight. A process belongs to the pod whose uid its cgroup names.
 *
 * usage: node usage.ts POD-UID…
 * Prints `{ "UID": { "cpuMs", "residentBytes", "proportionalBytes", "processes": [command lines] } }`.
 */
import { commandLine, cpuMs, proportionalBytes, residentBytes } from '../measure/processes.ts'
import { processesOf } from './pod-processes.ts'

export interface PodUsage {
  /** Of what runs now, since each process began. */
  readonly cpuMs: number
  readonly residentBytes: number
  /** A page that several processes share is counted once. */
  readonly proportionalBytes: number
  readonly processes: readonly string[]
}

const usage: Record<string, PodUsage> = {}
for (const uid of process.argv.slice(2)) {
  const pids = processesOf(uid)
  usage[uid] = {
    cpuMs: cpuMs(pids),
    residentBytes: residentBytes(pids),
    proportionalBytes: proportionalBytes(pids),
    processes: pids.map(commandLine),
  }
}
process.stdout.write(`${JSON.stringify(usage)}\n`)
