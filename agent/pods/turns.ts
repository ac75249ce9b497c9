/** What is told of one pod is told in order, each word after the one before has been taken; pods do not wait for each other. */
export class Turns {
  readonly #last = new Map<string, Promise<void>>()
  readonly #failed: (key: string, err: unknown) => void

  /** @param failed hears of what could not be taken; what follows it is told all the same */
  constructor(failed: (key: string, err: unknown) => void) {
    this.#failed = failed
  }

  /** Never rejects. */
  inTurn(key: string, tell: () => Promise<void>): Promise<void> {
    const before = this.#last.get(key) ?? Promise.resolve()
    const told = before
      .then(tell)
      .catch((err: unknown) => this.#failed(key, err))
      .finally(() => {
        if (this.#last.get(key) === told) this.#last.delete(key)
      })
    this.#last.set(key, told)
    return told
  }
}
