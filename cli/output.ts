/**
 * What the command says, and how.
 * - Results go to standard output; progress, warnings and errors to standard error.
 * - An error is `culvert: message`, lower case, no period; what to do about it is a `hint:` line of its own.
 * - Ticks and colours only on a terminal, and not when NO_COLOR is set (no-color.org).
 * - With `--json` standard output holds one JSON value and nothing else.
 */
import { styleText } from 'node:util'
import { CulvertError, errorText } from '../lib/errors.ts'

/** sysexits.h for what shells and scripts may tell apart; 1 for everything else. */
export const EXIT = { ok: 0, failed: 1, usage: 2, unavailable: 69, noPermission: 77 } as const

type Style = 'green' | 'red' | 'yellow' | 'dim' | 'bold'

export function isTerminal(stream: NodeJS.WriteStream): boolean {
  return stream.isTTY
}

/** The text in a style where the stream shows styles, plain elsewhere. */
export function styled(style: Style, text: string, stream: NodeJS.WriteStream = process.stdout): string {
  // styleText itself heeds NO_COLOR and whether the stream is a terminal.
  return styleText(style, text, { stream })
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, undefined, 2))
}

/** A line about what is going on, for people only. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`)
}

/** Columns as wide as they need to be; the first row is the head. Styles are put on after measuring. */
export function table(
  rows: readonly (readonly string[])[],
  style?: (cell: string, column: number) => string,
): string {
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map(row => row[column]?.length ?? 0))) ?? []
  return rows
    .map((row, at) =>
      row
        .map((cell, column) => {
          const isLast = column === row.length - 1
          const padding = isLast ? '' : ' '.repeat(widths[column]! - cell.length + 2)
          const shown = at === 0 ? styled('dim', cell) : (style?.(cell, column) ?? cell)
          return shown + padding
        })
        .join(''),
    )
    .join('\n')
}

/** Says what went wrong and gives the exit status for it. */
export function fail(err: unknown): number {
  const [first = '', ...rest] = errorText(err).split('\n')
  note([`${styled('red', 'culvert:', process.stderr)} ${first}`, ...rest].join('\n'))
  if (err instanceof CulvertError && err.hint) note(`${styled('dim', 'hint:', process.stderr)} ${err.hint}`)
  return exitCodeOf(err)
}

function exitCodeOf(err: unknown): number {
  if (!(err instanceof CulvertError)) return EXIT.failed
  if (err.code === 'INPUT' || err.code === 'CONFIG') return EXIT.usage
  if (err.code === 'TOOL') return EXIT.unavailable
  if (err.code === 'DENIED') return EXIT.noPermission
  return EXIT.failed
}

/** Steps one after the other: on a terminal each gets its tick and time, elsewhere each is a line. */
export class Steps {
  readonly #isSilent: boolean
  readonly #isLive: boolean
  #step: { text: string; startedAt: number } | undefined

  constructor(isSilent: boolean) {
    this.#isSilent = isSilent
    this.#isLive = isTerminal(process.stderr)
  }

  begin(text: string): void {
    this.done()
    this.#step = { text, startedAt: performance.now() }
    if (!this.#isSilent && this.#isLive) process.stderr.write(`${styled('dim', '…', process.stderr)} ${text}`)
  }

  /** What the step under way turns out to be. */
  became(text: string): void {
    if (this.#step) this.#step.text = text
  }

  done(): void {
    this.#end('green', '✔')
  }

  failed(): void {
    this.#end('red', '✘')
  }

  #end(style: Style, tick: string): void {
    if (!this.#step) return
    const { text, startedAt } = this.#step
    this.#step = undefined
    if (this.#isSilent) return
    const tookMs = Math.round(performance.now() - startedAt)
    const line = `${styled(style, tick, process.stderr)} ${text} ${styled('dim', `${tookMs} ms`, process.stderr)}`
    process.stderr.write(this.#isLive ? `\r\u001b[K${line}\n` : `${line}\n`)
  }
}
