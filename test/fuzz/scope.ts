/** What was made and has to be undone: in the opposite order, each whatever became of the others. */

export class Scope {
  readonly #undo: (() => unknown)[] = []

  teardown(undo: () => unknown): void {
    this.#undo.push(undo)
  }

  /** Undoes everything. Throws the first failure once all is done. */
  async close(): Promise<void> {
    const failures: unknown[] = []
    for (let undo = this.#undo.pop(); undo; undo = this.#undo.pop())
      try {
        await undo()
      } catch (err) {
        failures.push(err)
      }
    if (failures.length > 0) throw failures[0]
  }
}
