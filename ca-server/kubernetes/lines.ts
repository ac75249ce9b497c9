/**
 * Lines of a stream that may go on for hours. What is held of a line is bounded: of one that is too long only the
 * beginning is kept, the rest is counted and dropped as it comes.
 */

/** A line without its end; of one that is too long, how long it was and its first kilobytes. */
export type Line =
  | { readonly kind: 'line'; readonly text: string }
  | { readonly kind: 'too-long'; readonly bytes: number; readonly head: string }

const NEWLINE = 0x0a
const HEAD_BYTES = 1024

/**
 * The lines (UTF-8, ended by \n) of what comes, empty ones left out. What follows the last end counts as a line.
 * Ends with the stream, or with its error.
 */
export async function* readLines(chunks: AsyncIterable<Uint8Array>, maxBytes: number): AsyncGenerator<Line> {
  const line = new OpenLine(maxBytes)
  for await (const chunk of chunks) {
    let from = 0
    for (let end; (end = chunk.indexOf(NEWLINE, from)) >= 0; from = end + 1) {
      line.add(chunk.subarray(from, end))
      if (line.bytes > 0) yield line.take()
    }
    line.add(chunk.subarray(from))
  }
  if (line.bytes > 0) yield line.take()
}

/** What has come of a line that has not ended. */
class OpenLine {
  readonly #maxBytes: number
  #parts: Uint8Array[] = []
  bytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  add(part: Uint8Array): void {
    if (part.length === 0) return
    const wasTooLong = this.bytes > this.#maxBytes
    this.bytes += part.length
    if (wasTooLong) return
    this.#parts.push(part)
    if (this.bytes > this.#maxBytes)
      this.#parts = [Buffer.concat(this.#parts).subarray(0, Math.min(HEAD_BYTES, this.#maxBytes))]
  }

  take(): Line {
    const text = Buffer.concat(this.#parts).toString()
    const { bytes } = this
    this.#parts = []
    this.bytes = 0
    return bytes > this.#maxBytes ? { kind: 'too-long', bytes, head: text } : { kind: 'line', text }
  }
}
