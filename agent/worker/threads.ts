/**
 * The data-plane threads as the main thread sees them: commands go to all of them, questions come back, what they have
 * counted and logged is handed on. A thread that dies takes the process with it: its connections are reset by the kernel, the
 * listening sockets live on outside, and the next process takes them.
 */
import { Worker } from 'node:worker_threads'
import { CulvertError, errorText } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import type {
  ConnectionRecord,
  Control,
  FromWorker,
  PodListeners,
  ToThread,
  ToWorker,
  TrafficReport,
} from './messages.ts'
import type { RefusalCount } from './refusals.ts'
import type { ThreadOptions } from './thread.ts'

export interface ThreadEvents {
  traffic(report: TrafficReport, thread: number): void
  /** Connections that were refused since the last word of it. */
  refusals(refusals: readonly RefusalCount[]): void
  /** Lines of the access log, some whole ones for each write. */
  accessLog(writes: readonly string[]): void
  counters(thread: number, counters: Record<string, number>, dialled: Record<string, number>): void
  /** A thread ended by itself: the process must too. */
  died(error: Error): void
}

export class DataPlaneThreads {
  readonly #workers: Worker[] = []
  readonly #control: Control
  readonly #events: ThreadEvents
  readonly #log: Logger
  readonly #removals = new Map<
    number,
    { left: number; cut: ConnectionRecord[]; done: (cut: ConnectionRecord[]) => void }
  >()
  readonly #listings = new Map<
    number,
    { left: number; records: ConnectionRecord[]; done: (records: ConnectionRecord[]) => void }
  >()
  #lastRequest = 0
  #drain: { left: number; cut: ConnectionRecord[]; done: (cut: ConnectionRecord[]) => void } | undefined
  #isStopping = false

  constructor(control: Control, events: ThreadEvents, log: Logger) {
    this.#control = control
    this.#events = events
    this.#log = log
  }

  /** How many there are. */
  get count(): number {
    return this.#workers.length
  }

  /** Starts `count` threads; resolves when all of them are ready. */
  async start(count: number, options: ThreadOptions): Promise<void> {
    const ready: Promise<void>[] = []
    for (let index = 0; index < count; index++) {
      const worker = new Worker(new URL('thread.ts', import.meta.url), {
        workerData: options,
        name: `data-plane-${index}`,
      })
      this.#workers.push(worker)
      ready.push(
        new Promise((resolve, reject) => {
          worker.on('message', (message: FromWorker) => {
            if (message.type === 'ready') resolve()
            else this.#handle(worker, message)
          })
          worker.on('error', (err: unknown) => {
            reject(err)
            this.#died(err)
          })
          worker.on('exit', code =>
            this.#died(new CulvertError('CLOSED', `data-plane thread ended with code ${code}`)),
          )
        }),
      )
    }
    await Promise.all(ready)
  }

  /** To every thread. */
  tell(message: ToThread): void {
    for (const worker of this.#workers) worker.postMessage(message)
  }

  /** To each thread its own set of listening sockets, in order. */
  listen(podUid: string, perThread: readonly PodListeners[]): void {
    this.#workers.forEach((worker, index) => {
      const listeners = perThread[index]
      if (listeners) worker.postMessage({ type: 'listen', podUid, listeners } satisfies ToWorker)
    })
  }

  /** GOAWAY and drain for one pod; resolves with what was cut. */
  removePod(podUid: string, deadlineMs: number): Promise<ConnectionRecord[]> {
    return new Promise(resolve => {
      const id = ++this.#lastRequest
      this.#removals.set(id, { left: this.count, cut: [], done: resolve })
      this.tell({ type: 'remove-pod', id, podUid, drain: { deadlineMs } })
    })
  }

  /** Resets what comes to a pod in plaintext against its being strict; resolves with what was cut. */
  cutPlaintext(podUid: string): Promise<ConnectionRecord[]> {
    return new Promise(resolve => {
      const id = ++this.#lastRequest
      this.#removals.set(id, { left: this.count, cut: [], done: resolve })
      this.tell({ type: 'cut-plaintext', id, podUid })
    })
  }

  connections(): Promise<ConnectionRecord[]> {
    return new Promise(resolve => {
      const id = ++this.#lastRequest
      this.#listings.set(id, { left: this.count, records: [], done: resolve })
      this.tell({ type: 'list-connections', id })
    })
  }

  /** Stops accepting everywhere and drains; resolves with what was cut. */
  drain(deadlineMs: number): Promise<ConnectionRecord[]> {
    return new Promise(resolve => {
      this.#drain = { left: this.count, cut: [], done: resolve }
      this.tell({ type: 'drain', drain: { deadlineMs } })
    })
  }

  async stop(): Promise<void> {
    this.#isStopping = true
    await Promise.all(this.#workers.map(worker => worker.terminate()))
  }

  #handle(worker: Worker, message: FromWorker): void {
    switch (message.type) {
      case 'route':
        this.#answer(worker, this.#control.route(message.question), decision => ({
          type: 'route-answer',
          id: message.id,
          decision,
        }))
        break
      case 'admit':
        this.#answer(worker, this.#control.admit(message.question), decision => ({
          type: 'admit-answer',
          id: message.id,
          decision,
        }))
        break
      case 'several':
        for (const each of message.messages) this.#handle(worker, each)
        break
      case 'traffic':
        this.#events.traffic(message.report, this.#workers.indexOf(worker))
        break
      case 'refusals':
        this.#events.refusals(message.refusals)
        break
      case 'access-log':
        this.#events.accessLog(message.writes)
        break
      case 'connections':
        gather(this.#listings.get(message.id), 'records', message.records, () =>
          this.#listings.delete(message.id),
        )
        break
      case 'pod-removed':
      case 'plaintext-cut':
        gather(this.#removals.get(message.id), 'cut', message.cut, () => this.#removals.delete(message.id))
        break
      case 'drained':
        gather(this.#drain, 'cut', message.cut, () => (this.#drain = undefined))
        break
      case 'log':
        this.#log[message.level](message.fields, message.message)
        break
      case 'counters':
        this.#events.counters(this.#workers.indexOf(worker), message.counters, message.dialled)
        break
      case 'ready':
        break
    }
  }

  #answer<D>(worker: Worker, decision: Promise<D>, message: (decision: D) => ToWorker): void {
    decision.then(
      answer => worker.postMessage(message(answer)),
      (err: unknown) => {
        this.#log.error({ err: errorText(err) }, 'a routing decision failed')
        const refusal = {
          kind: 'refuse',
          reason: 'unreachable',
          detail: `no decision: ${errorText(err)}`,
          peer: {},
        }
        worker.postMessage(message(refusal as D))
      },
    )
  }

  #died(err: unknown): void {
    if (!this.#isStopping) this.#events.died(err instanceof Error ? err : new Error(String(err)))
  }
}

function gather<K extends 'cut' | 'records'>(
  request:
    | ({ left: number; done: (records: ConnectionRecord[]) => void } & { [key in K]: ConnectionRecord[] })
    | undefined,
  key: K,
  records: ConnectionRecord[],
  forget: () => void,
): void {
  if (!request) return
  request[key].push(...records)
  if (--request.left > 0) return
  forget()
  request.done(request[key])
}
