/**
 * Tells the kubelet from everything else on the node that calls a pod, for probes under strict. What the kernel knows: the
 * socket at the caller's end of a connection, in the node's namespace, and which process has it open. The kubelet is a
 * process of one of a few names that is in no pod.
 *
 * Needs to see the node's processes (hostPID) and to look into them (CAP_SYS_PTRACE). Where it cannot, nothing is told,
 * and who calls from the node's addresses is taken for the kubelet; that is logged once.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { errorText } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import type { KubeletProof } from '../mesh/admission.ts'
import { inNetns, openNetns } from '../sys/netns.ts'
import { connectionInode } from '../sys/socket-diag.ts'

export interface KubeletOptions {
  /** Opens the node's network namespace. */
  readonly netns: string
  readonly names: readonly string[]
  readonly log: Logger
  /** Where processes are listed. @default /proc */
  readonly proc?: string
}

/** Looking for it again walks all processes: at most this often. */
const SEARCH_AGAIN_MS = 5000

export class Kubelet {
  readonly #options: Required<KubeletOptions>
  #netnsFd: number | undefined
  #pids: readonly number[] = []
  #searchedAtMs = -Infinity
  #hasComplained = false

  constructor(options: KubeletOptions) {
    this.#options = { proc: '/proc', ...options }
  }

  /**
   * Reports whether the kubelet has the `source` end of the connection open; `'closed'` when a process of the node had it
   * and has closed it, undefined when it cannot be told. Never throws.
   */
  readonly called: KubeletProof = (source, destination) => {
    try {
      const pids = this.#find()
      if (pids.length === 0) return this.#cannotTell('no process of that name is in sight')
      this.#netnsFd ??= openNetns(this.#options.netns)
      const inode = inNetns(this.#netnsFd, () => connectionInode(source, destination))
      if (inode === undefined) return false
      if (inode === 0n) return 'closed'
      const link = `socket:[${inode}]`
      return pids.some(pid => this.#links(pid).includes(link))
    } catch (err) {
      return this.#cannotTell(errorText(err))
    }
  }

  /** The processes that are the kubelet; more than one while it is replaced. */
  #find(): readonly number[] {
    const nowMs = performance.now()
    this.#pids = this.#pids.filter(pid => this.#isKubelet(pid))
    if (this.#pids.length > 0 || nowMs - this.#searchedAtMs < SEARCH_AGAIN_MS) return this.#pids
    this.#searchedAtMs = nowMs
    this.#pids = readdirSync(this.#options.proc)
      .filter(name => /^\d+$/.test(name))
      .map(Number)
      .filter(pid => this.#isKubelet(pid))
    return this.#pids
  }

  #isKubelet(pid: number): boolean {
    const { names } = this.#options
    // A pod may call its processes what it likes.
    return (
      names.includes(this.#read(pid, 'comm').trim()) &&
      !/kubepods|\/pod[0-9a-f]/.test(this.#read(pid, 'cgroup'))
    )
  }

  #links(pid: number): string[] {
    const directory = `${this.#options.proc}/${pid}/fd`
    return readdirSync(directory).flatMap(fd => {
      try {
        return [readlinkSync(`${directory}/${fd}`)]
      } catch {
        return [] // closed meanwhile
      }
    })
  }

  #read(pid: number, file: string): string {
    try {
      return readFileSync(`${this.#options.proc}/${pid}/${file}`, 'latin1')
    } catch {
      return '' // gone meanwhile
    }
  }

  #cannotTell(why: string): undefined {
    if (!this.#hasComplained)
      this.#options.log.warn(
        { err: why, names: this.#options.names },
        'the kubelet cannot be told from others of this node: whoever calls the port of a probe from its addresses is let in',
      )
    this.#hasComplained = true
    return undefined
  }
}
