/** A label whose values nobody can list beforehand: the first few are kept, what comes later is `other`. */
export class BoundedLabel {
  readonly #most: number
  readonly #shape: RegExp
  readonly #values = new Set<string>()

  /** Keeps `most` values, and only those of `shape`. */
  constructor(most: number, shape: RegExp) {
    this.#most = most
    this.#shape = shape
  }

  of(text: string): string {
    if (this.#values.has(text)) return text
    if (this.#values.size >= this.#most || !this.#shape.test(text)) return 'other'
    this.#values.add(text)
    return text
  }
}
