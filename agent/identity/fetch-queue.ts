/**
 * Who is served next: a bounded number of jobs at once, urgent ones first, and two places that only urgent jobs may
 * take, so that a wave of slow renewals never keeps a new pod waiting.
 */

const KEPT_FOR_URGENT = 2

export interface FetchQueueOptions<T> {
  /** Jobs at once. */
  readonly concurrency: number
  /** Does the job. Must not reject: how it went is the job's own affair. */
  readonly run: (item: T) => Promise<void>
}

export class FetchQueue<T> {
  readonly #options: FetchQueueOptions<T>
  // Insertion order is the order of service; an item is in at most one of them.
  readonly #urgent = new Set<T>()
  readonly #patient = new Set<T>()
  #running = 0
  #patientRunning = 0

  constructor(options: FetchQueueOptions<T>) {
    this.#options = options
  }

  /** Puts an item in line, once however often it is added. */
  add(item: T, isUrgent: boolean): void {
    this.remove(item)
    const queue = isUrgent ? this.#urgent : this.#patient
    queue.add(item)
    this.#startNext()
  }

  /** Takes an item out of the line. A job that runs already goes on. */
  remove(item: T): void {
    this.#urgent.delete(item)
    this.#patient.delete(item)
  }

  #startNext(): void {
    const { concurrency } = this.#options
    const mostPatient = Math.max(1, concurrency - KEPT_FOR_URGENT)
    while (this.#running < concurrency) {
      const [urgent] = this.#urgent
      if (urgent !== undefined) {
        this.#urgent.delete(urgent)
        void this.#run(urgent, true)
        continue
      }
      const [patient] = this.#patient
      if (patient === undefined || this.#patientRunning >= mostPatient) return
      this.#patient.delete(patient)
      void this.#run(patient, false)
    }
  }

  async #run(item: T, isUrgent: boolean): Promise<void> {
    this.#running++
    if (!isUrgent) this.#patientRunning++
    try {
      await this.#options.run(item)
    } finally {
      this.#running--
      if (!isUrgent) this.#patientRunning--
      this.#startNext()
    }
  }
}
