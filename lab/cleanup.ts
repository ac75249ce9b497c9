/**
 * Removing what is left of a lab whose supervisor is gone: processes it had started, whatever else lives in the
 * lab's namespaces (socket holders of agents, forgotten shells), the namespaces and the run directory. Only
 * what is the lab's by number and start time, or by namespace, is touched.
 */
import { rmdirSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CulvertError, errorCode } from '../lib/errors.ts'
import { netnsPath, type LabPaths } from './names.ts'
import { listNetns, removeNetns } from './net/namespaces.ts'
import {
  boundNamespaceInode,
  isAlive,
  namespaceInode,
  processesIn,
  signalProcess,
  type ProcessRef,
} from './processes.ts'
import type { LabState } from './state.ts'

const GONE_TIMEOUT_MS = 3000

export interface Cleaned {
  readonly processes: number
  readonly namespaces: number
}

/** Removes everything of the lab but a live supervisor. Throws `LAB` when a process cannot be ended. */
export async function cleanUp(lab: string, paths: LabPaths, state: LabState | undefined): Promise<Cleaned> {
  const killed = new Set<number>()
  const netns = seesNames(state) ? listNetns(lab) : []
  const known = new Map(Object.values(state?.processes ?? {}).map(ref => [ref.pid, ref]))
  const left = () => {
    // Kept once found: one that is ending has left its namespaces for a moment before it is gone.
    for (const ref of processesOf(netns, state)) known.set(ref.pid, ref)
    return [...known.values()].filter(isAlive)
  }
  for (const deadline = Date.now() + GONE_TIMEOUT_MS; ; await sleep(20)) {
    const alive = left()
    if (alive.length === 0) break
    if (Date.now() > deadline)
      throw new CulvertError(
        'LAB',
        `processes ${alive.map(({ pid }) => pid).join(', ')} of lab '${lab}' do not end`,
      )
    for (const ref of alive) {
      killed.add(ref.pid)
      signalProcess(ref, 'SIGKILL')
    }
  }
  await removeNetns(netns)
  rmSync(paths.run, { recursive: true, force: true })
  removeIfEmpty(dirname(paths.run))
  return { processes: killed.size, namespaces: netns.length }
}

/** The directory of all labs goes with the last of them. */
function removeIfEmpty(dir: string): void {
  try {
    rmdirSync(dir)
  } catch (err) {
    if (!['ENOTEMPTY', 'ENOENT', 'EEXIST'].includes(errorCode(err) ?? '')) throw err
  }
}

/**
 * Reports whether the names below /run/netns that this process sees are the lab's: those of a lab without root
 * exist inside of it only, and outside may be another's of the same name.
 */
function seesNames(state: LabState | undefined): boolean {
  if (process.getuid?.() !== 0) return false
  return state?.userNamespace === undefined || state.userNamespace === namespaceInode('self', 'user')
}

/** Everything that lives in the lab's network namespaces or, for a lab without root, in its user namespace. */
function processesOf(netns: readonly string[], state: LabState | undefined): ProcessRef[] {
  const inodes = netns.flatMap(name => boundNamespaceInode(netnsPath(name)) ?? [])
  // A name that could not be bound is a plain file; a number that is our own namespace's is no namespace of the lab.
  const own = namespaceInode('self', 'net')
  const net = processesIn('net', new Set(inodes.filter(inode => inode !== own)))
  const user = state?.userNamespace
  if (user === undefined || user === namespaceInode('self', 'user')) return net
  return [...net, ...processesIn('user', new Set([user]))]
}
