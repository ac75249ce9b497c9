/**
 * Which pod a process belongs to, by its control groups (cgroups(7), `/proc/PID/cgroup`). The kubelet makes a group for
 * each pod, with the pod's uid in its name, and names it in one of two ways:
 *
 * - by itself: `/kubepods/burstable/pod<uid>/<container>`
 * - through systemd: `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid, _ for ->.slice/<container>.scope`
 *
 * In version 1 there is a line for each hierarchy, in version 2 one. A reader in a control-group namespace of its own
 * sees others relative to that, `/../../pod<uid>/…`; of its own pod it sees no uid.
 *
 * The first group on the way down that names a pod counts: what a container makes below its own is its own affair.
 */
import { readFileSync } from 'node:fs'

/** A uid as the API server makes them; of a pod from a file, which the API server did not make, 32 digits. */
const uid = (dash: string): string =>
  `([0-9a-f]{8}${dash}[0-9a-f]{4}${dash}[0-9a-f]{4}${dash}[0-9a-f]{4}${dash}[0-9a-f]{12}|[0-9a-f]{32})`
const POD_GROUP = new RegExp(`^pod${uid('-')}$`)
const POD_SLICE = new RegExp(`-pod${uid('_')}\\.slice$`)

/** The uid of the pod that a control group is part of; undefined when it is none of a pod's. */
export function podUidOfCgroup(path: string): string | undefined {
  for (const part of path.split('/')) {
    const found = (POD_GROUP.exec(part) ?? POD_SLICE.exec(part))?.[1]
    if (found !== undefined) return found.replaceAll('_', '-')
  }
  return undefined
}

/**
 * The uid in the text of a `/proc/PID/cgroup`. Undefined when it names no pod, or more than one: who may move itself
 * about in one hierarchy is not believed about any.
 */
export function podUidOfProcess(text: string): string | undefined {
  let found: string | undefined
  for (const line of text.split('\n')) {
    // `hierarchy:controllers:path`; the path may hold colons.
    const path = /^\d+:[^:]*:(.*)$/.exec(line)?.[1]
    const named = path === undefined ? undefined : podUidOfCgroup(path)
    if (named === undefined) continue
    if (found !== undefined && found !== named) return undefined
    found = named
  }
  return found
}

/** What the kernel says of a process's control groups; undefined when there is no such process, or only its remains. */
export function cgroupOf(pid: number | 'self'): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/cgroup`, 'latin1')
  } catch {
    return undefined
  }
}
