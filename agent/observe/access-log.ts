/**
 * Where the access log goes. Its lines are rendered by the data-plane threads and written by a thread of their own: a
 * reader that is too slow costs lines, which are counted, and never holds the event loop.
 */
import { pino } from 'pino'
import { LONGEST_WRITE } from '../worker/access-lines.ts'

export interface AccessLogOptions {
  /** Descriptor that lines go to. @default 1 */
  fd?: number
  /** What may wait for the reader before lines are dropped. @default 4 MiB */
  mostBufferedBytes?: number
  /** Called with the number of lines that were dropped. */
  onDropped?: (lines: number) => void
}

const WRITE_FROM = 2048
const FLUSH_EVERY_MS = 100

export class AccessLog {
  readonly #destination: ReturnType<typeof pino.destination>
  /** Runs while something may wait to be written. */
  #timer: NodeJS.Timeout | undefined

  constructor({ fd = 1, mostBufferedBytes = 4 * 1024 * 1024, onDropped }: AccessLogOptions = {}) {
    this.#destination = pino.destination({
      dest: fd,
      sync: false,
      minLength: WRITE_FROM,
      maxWrite: LONGEST_WRITE,
      maxLength: mostBufferedBytes,
    })
    this.#destination.on('drop', (lines: string) => onDropped?.(countLines(lines)))
    this.#destination.on('error', () => onDropped?.(1)) // the reader is gone
  }

  /** Takes whole lines, some for each write. */
  write(writes: readonly string[]): void {
    for (const lines of writes) this.#destination.write(lines)
    if (this.#timer) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#destination.flush()
    }, FLUSH_EVERY_MS).unref()
  }

  /** Waits until what was taken has been written, but not for a reader that has stopped reading. */
  async flush(timeoutMs = 1000): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, timeoutMs)
    this.#destination.flush(() => resolve())
    await promise
    clearTimeout(timer)
  }
}

function countLines(text: string): number {
  let count = 0
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) count++
  return count
}
