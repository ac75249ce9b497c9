/** Numbers that look random and are the same for the same seed, so that every case can be made again. */

export class Random {
  #a: number
  #b: number
  #c: number
  #counter = 1

  /** `parts` name the sequence: a seed, the number of a case, … */
  constructor(...parts: readonly (number | string)[]) {
    // FNV-1a over the text of the parts, thrice with other beginnings: the state of sfc32.
    const text = parts.join('/')
    ;[this.#a, this.#b, this.#c] = [0x811c9dc5, 0x9e3779b9, 0x243f6a88].map(begin => {
      let hash = begin
      for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193)
      return hash | 0
    }) as [number, number, number]
    for (let round = 0; round < 15; round++) this.uint32()
  }

  uint32(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#counter) | 0
    this.#counter = (this.#counter + 1) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0
    return sum >>> 0
  }

  /** 0 to `below` - 1. */
  int(below: number): number {
    return Math.floor((this.uint32() / 2 ** 32) * below)
  }

  /** `from` to `to`, both included. */
  between(from: number, to: number): number {
    return from + this.int(to - from + 1)
  }

  /** True once in `times`. */
  once(times: number): boolean {
    return this.int(times) === 0
  }

  pick<T>(list: readonly T[]): T {
    return list[this.int(list.length)]!
  }

  /** Picks by weight. */
  weighted<T>(list: readonly (readonly [weight: number, value: T])[]): T {
    let at = this.int(list.reduce((sum, [weight]) => sum + weight, 0))
    for (const [weight, value] of list) if ((at -= weight) < 0) return value
    return list[0]![1]
  }

  bytes(length: number): Buffer {
    const bytes = Buffer.alloc(length)
    for (let at = 0; at < length; at++) bytes[at] = this.uint32() >>> 24
    return bytes
  }

  /** Mostly small, now and then up to `most`. */
  size(most: number): number {
    return this.once(10) ? this.int(most + 1) : this.int(Math.min(most, 40) + 1)
  }
}
