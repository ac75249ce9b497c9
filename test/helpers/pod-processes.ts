/**
 * Processes as the node of a cluster has them: in a network namespace, and in the control group that a kubelet would have
 * made for their pod. Where control groups cannot be made, `canMakeGroups` says so.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'

let groups = 0

/** Where control groups can be made: version 2, or one hierarchy of version 1. */
const hierarchy = readFileSync('/proc/self/mountinfo', 'utf8')
  .split('\n')
  .map(line => {
    const [before = '', after = ''] = line.split(' - ')
    return { path: before.split(' ')[4] ?? '', kind: after.split(' ')[0], options: after }
  })
  .find(({ kind, options }) => kind === 'cgroup2' || (kind === 'cgroup' && /\bpids\b/.test(options)))?.path

export const canMakeGroups = hierarchy !== undefined && canMake(hierarchy)

function canMake(path: string): boolean {
  const trial = join(path, `culvert-trial-${process.pid}`)
  try {
    mkdirSync(trial)
    rmdirSync(trial)
    return true
  } catch {
    return false
  }
}

/** A control group as a container has one of its own; it ends, with all that is in it, when the test does or before. */
export class TestGroup {
  readonly #path: string

  constructor(t: Test, name: string) {
    this.#path = join(hierarchy!, `culvert-t${process.pid}-${groups++}-${name}`)
    mkdirSync(this.#path)
    t.teardown(async () => {
      await this.end()
      rmdirSync(this.#path)
    })
  }

  /** What comes before a command that is to run in it. */
  get argv(): readonly string[] {
    return ['sh', '-c', `echo $$ > ${this.#path}/cgroup.procs && exec "$@"`, 'sh']
  }

  pids(): number[] {
    return readFileSync(join(this.#path, 'cgroup.procs'), 'utf8')
      .split('\n')
      .filter(line => line !== '')
      .map(Number)
  }

  /** Kills everything in it, as the runtime does when the first process of a container has ended. */
  async end(): Promise<void> {
    for (let pids; (pids = this.pids()).length > 0; await new Promise(setImmediate))
      for (const pid of pids)
        try {
          process.kill(pid, 'SIGKILL')
        } catch {
          // It has ended by itself.
        }
  }
}

export interface PodProcess {
  readonly pid: number
  readonly child: ChildProcess
  /** Resolves when it is gone. */
  kill(): Promise<void>
}

/** A process that does nothing, in a namespace under /run/netns and in the group of a pod. Everything is gone when the test ends. */
export async function podProcess(t: Test, netns: string, podUid: string): Promise<PodProcess> {
  const root = join(hierarchy!, `culvert-t${process.pid}-${groups++}`)
  const pod = join(root, 'kubepods', `pod${podUid}`)
  mkdirSync(pod, { recursive: true })
  // It tells that it is in the namespace before it is moved into the group.
  const child = spawn('ip', ['netns', 'exec', netns, 'sh', '-c', 'echo in; exec sleep 1000'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const exited = once(child, 'exit')
  const kill = async () => {
    child.kill('SIGKILL')
    await exited
  }
  t.teardown(async () => {
    await kill()
    for (const path of [pod, join(root, 'kubepods'), root]) rmdirSync(path)
  })
  await once(child.stdout, 'data')
  writeFileSync(join(pod, 'cgroup.procs'), String(child.pid))
  return { pid: child.pid!, child, kill }
}
