/**
 * Everything one data-plane thread does: pods come, get certificates, are drained. Talks in the messages of
 * `messages.ts` and knows nothing of threads, so that tests can hold one in their hand.
 */
import { errorText } from '../../lib/errors.ts'
import { ConnectionBook, type ConnectionEvents } from '../proxy/connection.ts'
import { PodProxy } from '../proxy/pod-proxy.ts'
import type { LogLine, ProxyOptions } from '../proxy/pod-context.ts'
import type {
  AdmitDecision,
  AdmitQuestion,
  ConnectionRecord,
  Control,
  FromWorker,
  RouteDecision,
  RouteQuestion,
  ToWorker,
} from './messages.ts'
import { isAgainstStrict } from './against-strict.ts'
import { Tally } from './tally.ts'

export class DataPlane implements Control {
  readonly #options: ProxyOptions
  readonly #post: (message: FromWorker) => void
  readonly #book: ConnectionBook
  readonly #pods = new Map<string, PodProxy>()
  readonly #questions = new Map<number, (decision: never) => void>()
  readonly #log: LogLine
  readonly #tally = new Tally()
  #lastQuestion = 0

  /** `events` hears of every connection, beside what is counted here. */
  constructor(options: ProxyOptions, post: (message: FromWorker) => void, events: ConnectionEvents) {
    this.#options = { ...options, session: { ...options.session, observer: this.#tally } }
    this.#post = post
    this.#book = new ConnectionBook({
      opened: connection => events.opened(connection),
      closed: connection => {
        this.#tally.closed(connection)
        events.closed(connection)
      },
    })
    this.#log = (level, message, fields) => post({ type: 'log', level, message, fields })
  }

  /** What the thread has counted, totals since the last call; told to the main thread every now and then by its owner. */
  counters(): Extract<FromWorker, { type: 'counters' }> {
    let sessions = 0
    const dialled: Record<string, number> = {}
    for (const [uid, pod] of this.#pods) {
      sessions += pod.pool.sessionCount
      dialled[uid] = pod.dialled
    }
    return {
      type: 'counters',
      counters: { connections_open: this.#book.size, hbone_sessions: sessions, ...this.#tally.take() },
      dialled,
    }
  }

  /** Does what the main thread says. Never throws: what cannot be done is logged. */
  handle(message: ToWorker): void {
    try {
      this.#do(message)
    } catch (err) {
      this.#failed(message.type, err)
    }
  }

  route(question: RouteQuestion): Promise<RouteDecision> {
    return new Promise(resolve => {
      const id = ++this.#lastQuestion
      this.#questions.set(id, resolve)
      this.#post({ type: 'route', id, question })
    })
  }

  admit(question: AdmitQuestion): Promise<AdmitDecision> {
    return new Promise(resolve => {
      const id = ++this.#lastQuestion
      this.#questions.set(id, resolve)
      this.#post({ type: 'admit', id, question })
    })
  }

  #do(message: ToWorker): void {
    switch (message.type) {
      case 'pod': {
        const unnamed = this.#pods.get(message.pod.uid)
        if (unnamed?.pod.identity === '') {
          unnamed.named(message.pod)
          break
        }
        const parts = { options: this.#options, control: this, book: this.#book, log: this.#log }
        this.#pods.set(message.pod.uid, new PodProxy(message.pod, parts))
        break
      }
      case 'listen':
        this.#pods.get(message.podUid)?.listen(message.listeners)
        break
      case 'certificate':
        this.#pods.get(message.podUid)?.setCertificate(message.certificate)
        break
      case 'goaway':
        this.#pods.get(message.podUid)?.goaway()
        break
      case 'remove-pod':
        void this.#removePod(message.podUid, message.drain.deadlineMs)
          .catch((err: unknown) => this.#failed(message.type, err))
          .then(cut => this.#post({ type: 'pod-removed', id: message.id, cut }))
        break
      case 'invalidate':
        if (message.podUid !== undefined) this.#pods.get(message.podUid)?.invalidate()
        else for (const pod of this.#pods.values()) pod.invalidate()
        break
      case 'route-answer':
      case 'admit-answer':
        this.#questions.get(message.id)?.(message.decision as never)
        this.#questions.delete(message.id)
        break
      case 'list-connections':
        this.#post({
          type: 'connections',
          id: message.id,
          records: this.#book.of().map(connection => connection.record()),
        })
        break
      case 'cut-plaintext': {
        const open = this.#book.of(message.podUid).filter(each => isAgainstStrict(message.podUid, each))
        const cut = open.map(connection => connection.record())
        for (const connection of open) connection.cut('plaintext, and the pod is strict')
        this.#post({ type: 'plaintext-cut', id: message.id, cut })
        break
      }
      case 'drain':
        void this.#drain(message.drain.deadlineMs)
          .catch((err: unknown) => this.#failed(message.type, err))
          .then(cut => this.#post({ type: 'drained', cut }))
        break
    }
  }

  async #removePod(podUid: string, deadlineMs: number): Promise<ConnectionRecord[]> {
    const pod = this.#pods.get(podUid)
    this.#pods.delete(podUid)
    // One that is leaving already may have connections left: this deadline holds for them too.
    return pod ? pod.leave(deadlineMs) : this.#book.drain(deadlineMs, podUid)
  }

  async #drain(deadlineMs: number): Promise<ConnectionRecord[]> {
    const startedAtMs = performance.now()
    const cut = (await Promise.all([...this.#pods.values()].map(pod => pod.leave(deadlineMs)))).flat()
    this.#pods.clear()
    // Those of pods that had left before.
    const others = await this.#book.drain(deadlineMs - (performance.now() - startedAtMs))
    const known = new Set(cut.map(({ id }) => id))
    return [...cut, ...others.filter(({ id }) => !known.has(id))]
  }

  /** The main thread waits for an answer, whatever happens. */
  #failed(type: ToWorker['type'], err: unknown): ConnectionRecord[] {
    this.#log('error', 'data plane could not do as told', { type, err: errorText(err) })
    return []
  }
}
