/**
 * The listening sockets of each pod, made once and never closed while the pod is in the mesh: a holder process
 * keeps them when the agent does not. An agent that starts takes the same sockets, and with them the connections
 * that came while nobody accepted; two agents side by side accept from one queue, so that nothing in it is lost
 * when one of them stops.
 *
 * Everything that changes the record is done in order, and several pods at once: the record names every pod of the node,
 * and is read and written once for all that is to be done. Should the agent end before it is written, the holders that it
 * does not name are found by the sockets they hold.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { CulvertError, errorText } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import { MARK, PORT } from '../ports.ts'
import { closeFd, dupFd } from '../sys/fd.ts'
import { inNetns, netnsInode } from '../sys/netns.ts'
import { listenTcp } from '../sys/socket.ts'
import type { PodListeners } from '../worker/messages.ts'
import { HolderFile, type HolderRecords } from './holder-file.ts'
import {
  adoptFrom,
  findHolder,
  HOLDER_FDS,
  isHolderAlive,
  isInOurContainer,
  killHolder,
  startHolder,
  type Holder,
} from './holder.ts'

export interface ListenerKeeperOptions {
  /** An existing directory that only root may write to; it should survive the agent's restart. */
  readonly runDir: string
  readonly log: Logger
  /** How often dead holders are looked for, milliseconds. @default 10000 */
  readonly tendMs?: number
}

interface Kept {
  readonly netnsInode: bigint
  /** Copies of our own: what `acquire` copies, and what a new holder gets should the first one be killed. */
  readonly listeners: PodListeners
  holder: Holder
}

/** What a change of the record works on; it is written when `isChanged` is set. */
interface Session {
  readonly records: HolderRecords
  isChanged: boolean
}

interface Change {
  readonly make: (session: Session) => void
  /** After the record was written. */
  readonly done: () => void
  readonly failed: (err: unknown) => void
}

/** Each may start a process, a millisecond: then others get a turn. */
const CHANGES_AT_ONCE = 8

export class ListenerKeeper {
  readonly #log: Logger
  readonly #file: HolderFile
  readonly #kept = new Map<string, Kept>()
  /** Pods whose sockets are kept, whether this agent has taken them over yet or not. */
  readonly #recorded: Set<string>
  readonly #onRecordAtStart: readonly string[]
  readonly #timer: NodeJS.Timeout
  readonly #changes: Change[] = []
  #changing: Promise<void> | undefined
  #isClosed = false

  constructor(options: ListenerKeeperOptions) {
    this.#log = options.log
    this.#file = new HolderFile(options.runDir)
    const records = Object.entries(this.#read())
    this.#onRecordAtStart = records.map(([uid]) => uid)
    this.#recorded = new Set(records.filter(([, record]) => isHolderAlive(record)).map(([uid]) => uid))
    this.#timer = setInterval(() => this.#tend(), options.tendMs ?? 10_000).unref()
  }

  /** Reports whether the pod's sockets are kept, by this agent or by one before it. */
  holds(podUid: string): boolean {
    return this.#recorded.has(podUid)
  }

  /**
   * A set of descriptors of the pod's listening sockets, the caller's to close: those that an agent before this
   * one made, or new ones. Each call gives another set of the same sockets. Throws `SYSCALL`, `NETNS`, `TOOL` or
   * `TIMEOUT`; a port that something in the pod already listens on is EADDRINUSE.
   */
  async acquire(podUid: string, netnsFd: number): Promise<PodListeners> {
    return copyOf((await this.#keep(podUid, netnsFd)).listeners)
  }

  /** The same, but for those who need no descriptors yet: the sockets stand, and a holder keeps them. */
  async stand(podUid: string, netnsFd: number): Promise<void> {
    await this.#keep(podUid, netnsFd)
  }

  #keep(podUid: string, netnsFd: number): Promise<Kept> {
    return this.#change(session => {
      const inode = netnsInode(netnsFd)
      const kept = this.#kept.get(podUid)
      if (kept?.netnsInode === inode) {
        // Writing the record may have failed the first time.
        if (!session.records[podUid] && isHolderAlive(kept.holder)) record(session, podUid, kept)
        return kept
      }
      if (kept) this.#letGo(podUid, session)
      const fresh = this.#takeOrMake(podUid, netnsFd, inode, session)
      this.#kept.set(podUid, fresh)
      this.#recorded.add(podUid)
      return fresh
    })
  }

  /** Ends the pod's holder: with the last descriptor elsewhere closed, nothing listens any more. Failures are logged. */
  release(podUid: string): void {
    this.#recorded.delete(podUid)
    this.#detached('could not end the holder of a pod', session => this.#letGo(podUid, session))
  }

  /**
   * Releases every pod that is not among these. What another agent has put on record since this one started is
   * left alone: it may know of pods that we have not heard of yet.
   */
  prune(livePods: ReadonlySet<string>): void {
    const known = new Set([...this.#onRecordAtStart, ...this.#kept.keys()])
    for (const uid of known) if (!livePods.has(uid)) this.release(uid)
  }

  /**
   * Resolves when everything asked for so far is done and this agent has let go of its copies of the sockets. The
   * holders stay, for the next agent.
   */
  async close(): Promise<void> {
    if (this.#isClosed) return
    clearInterval(this.#timer)
    this.#isClosed = true
    await this.#changing
    for (const { listeners } of this.#kept.values()) closeAll(listeners)
    this.#kept.clear()
  }

  /** Resolves when everything asked for so far is done. */
  async idle(): Promise<void> {
    await this.#changing
  }

  #takeOrMake(podUid: string, netnsFd: number, inode: bigint, session: Session): Kept {
    const recorded: Holder | undefined = session.records[podUid] ?? findHolder(netnsFd, podUid)
    if (recorded) {
      const adoption = adoptFrom(recorded, inode)
      if (adoption.kind === 'adopted') {
        const kept: Kept = { netnsInode: inode, listeners: adoption.listeners, holder: recorded }
        this.#keepOurselves(podUid, kept)
        record(session, podUid, kept)
        this.#log.info({ podUid, from: recorded.pid, holder: kept.holder.pid }, 'took over listening sockets')
        return kept
      }
      if (adoption.kind === 'forbidden')
        this.#log.warn(
          { podUid, holder: recorded.pid, err: adoption.why },
          'may not copy sockets from their holder, so waiting connections are lost: the agent needs CAP_SYS_PTRACE, and kernel.yama.ptrace_scope must be below 3',
        )
      else
        this.#log.debug({ podUid, holder: recorded.pid, why: adoption.why }, 'holder on record is of no use')
    }
    const listeners = makeListeners(netnsFd)
    try {
      const kept: Kept = { netnsInode: inode, listeners, holder: this.#startHolder(podUid, listeners) }
      record(session, podUid, kept)
      // Not before the new sockets stand; and not later, as it would go on taking its share of the connections.
      if (recorded) killHolder(recorded)
      return kept
    } catch (err) {
      closeAll(listeners)
      throw err
    }
  }

  /** A holder in another container ends with the agent there: from the beginning one of our own takes its place. */
  #keepOurselves(podUid: string, kept: Kept): void {
    const before = kept.holder
    if (isInOurContainer(before)) return
    try {
      kept.holder = this.#startHolder(podUid, kept.listeners)
      killHolder(before)
    } catch (err) {
      this.#log.warn(
        { podUid, holder: before.pid, err: errorText(err) },
        'sockets are kept by a process of another container, which may end at any time',
      )
    }
  }

  #startHolder(podUid: string, listeners: PodListeners): Holder {
    return startHolder(listeners, () => this.#tend(podUid))
  }

  /** Gives sockets whose holder was killed a new one. */
  #tend(podUid?: string): void {
    for (const [uid, kept] of this.#kept) {
      if ((podUid !== undefined && podUid !== uid) || isHolderAlive(kept.holder)) continue
      this.#detached("could not replace a pod's holder", session => {
        if (this.#kept.get(uid) !== kept || isHolderAlive(kept.holder)) return
        const recorded = session.records[uid]
        if (recorded === undefined) return // released by another agent beside this one
        if (isHolderAlive(recorded)) {
          kept.holder = recorded
          return
        }
        this.#log.warn(
          { podUid: uid, holder: kept.holder.pid },
          'holder of listening sockets was killed; starting another',
        )
        // Without a watcher of its own: should this one be killed at once, the next round is early enough.
        kept.holder = startHolder(kept.listeners, () => undefined)
        record(session, uid, kept)
      })
    }
  }

  #letGo(podUid: string, session: Session): void {
    const kept = this.#kept.get(podUid)
    this.#kept.delete(podUid)
    if (kept) closeAll(kept.listeners)
    const holder = session.records[podUid] ?? kept?.holder
    if (holder) killHolder(holder)
    if (!session.records[podUid]) return
    delete session.records[podUid]
    session.isChanged = true
  }

  #read(): HolderRecords {
    try {
      return this.#file.read()
    } catch (err) {
      this.#log.warn(
        { err: errorText(err) },
        'record of socket holders is not usable; they are looked for in /proc',
      )
      return {}
    }
  }

  #detached(failure: string, make: (session: Session) => void): void {
    this.#change(make).catch((err: unknown) => this.#log.warn({ err: errorText(err) }, failure))
  }

  /** Gives what `make` gives when the record was written, and rejects with what it throws. */
  #change<T>(make: (session: Session) => T): Promise<T> {
    if (this.#isClosed)
      return Promise.reject(new CulvertError('CLOSED', 'listening sockets are no longer kept'))
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    let result: T
    this.#changes.push({
      make: session => void (result = make(session)),
      done: () => resolve(result),
      failed: reject,
    })
    this.#changing ??= this.#work()
    return promise
  }

  /** Makes changes until none is left. */
  async #work(): Promise<void> {
    await nextTurn() // for what else is asked for at the same time
    for (let batch; (batch = this.#changes.splice(0, CHANGES_AT_ONCE)).length > 0; await nextTurn()) {
      try {
        const made = await this.#file.locked(async () => this.#make(batch))
        for (const { done } of made) done()
      } catch (err) {
        for (const { failed } of batch) failed(err)
      }
    }
    this.#changing = undefined
  }

  /** Gives those that were made. Throws when the record could not be written. */
  #make(batch: readonly Change[]): Change[] {
    const session: Session = { records: this.#read(), isChanged: false }
    const made: Change[] = []
    for (const change of batch) {
      try {
        change.make(session)
        made.push(change)
      } catch (err) {
        change.failed(err)
      }
    }
    if (session.isChanged) this.#file.write(session.records)
    return made
  }
}

function record(session: Session, podUid: string, { holder, netnsInode }: Kept): void {
  const { pid, startTime } = holder
  session.records[podUid] = { pid, startTime, netnsInode: Number(netnsInode), fds: HOLDER_FDS }
  session.isChanged = true
}

/** The three sockets of a pod, marked, so that what is accepted from them carries the agent's mark. Throws `SYSCALL`. */
function makeListeners(netnsFd: number): PodListeners {
  const made: number[] = []
  try {
    const [outbound, inbound, hbone] = inNetns(netnsFd, () =>
      [PORT.outbound, PORT.inbound, PORT.hbone].map(port => {
        const fd = listenTcp({ port, mark: MARK, reusePort: true })
        made.push(fd)
        return fd
      }),
    ) as [number, number, number]
    return { outbound, inbound, hbone }
  } catch (err) {
    made.forEach(closeFd)
    throw err
  }
}

function copyOf(listeners: PodListeners): PodListeners {
  const copied: number[] = []
  const copy = (fd: number) => {
    copied.push(dupFd(fd))
    return copied.at(-1)!
  }
  try {
    return {
      outbound: copy(listeners.outbound),
      inbound: copy(listeners.inbound),
      hbone: copy(listeners.hbone),
    }
  } catch (err) {
    copied.forEach(closeFd)
    throw err
  }
}

function closeAll(listeners: PodListeners): void {
  for (const fd of [listeners.outbound, listeners.inbound, listeners.hbone]) closeFd(fd)
}
