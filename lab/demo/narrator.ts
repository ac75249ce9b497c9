/**
 * Tells what a run does, step by step: ticks on a terminal, plain lines elsewhere, or one JSON object at the end.
 * A step that fails is told and counted, and the run goes on as far as it can.
 */
import { styleText } from 'node:util'
import { CulvertError, errorText } from '../../lib/errors.ts'

export interface StepResult {
  readonly name: string
  readonly passed: boolean
  /** What was seen, or what went wrong. */
  readonly detail: string
  readonly tookMs: number
}

export class Narrator {
  readonly results: StepResult[] = []
  readonly #isJson: boolean
  readonly #isTerminal: boolean

  constructor(isJson: boolean) {
    this.#isJson = isJson
    this.#isTerminal = process.stdout.isTTY
  }

  heading(text: string): void {
    if (!this.#isJson) process.stdout.write(`${this.#style('bold', text)}\n\n`)
  }

  /** Runs a step; what it returns is shown beside its name. Reports whether it passed. */
  async step(name: string, work: () => Promise<string>): Promise<boolean> {
    const startedAt = performance.now()
    if (this.#isTerminal && !this.#isJson) process.stdout.write(`  … ${name}`)
    let passed = true
    let detail: string
    try {
      detail = await work()
    } catch (err) {
      passed = false
      detail = errorText(err)
      if (err instanceof CulvertError && err.hint) detail += ` (${err.hint})`
    }
    const tookMs = Math.round(performance.now() - startedAt)
    this.results.push({ name, passed, detail, tookMs })
    if (this.#isJson) return passed
    const mark = passed ? this.#style('green', '✓') : this.#style('red', '✗')
    const lead = this.#isTerminal ? '\r\x1b[K' : ''
    process.stdout.write(`${lead}  ${this.#isTerminal ? mark : passed ? 'ok  ' : 'FAIL'} ${name}\n`)
    for (const line of detail.split('\n'))
      if (line) process.stdout.write(`      ${this.#style('dim', line)}\n`)
    return passed
  }

  /** The closing line, or the JSON object. Gives the exit code. */
  finish(tookMs: number): number {
    const failed = this.results.filter(step => !step.passed).length
    const passed = this.results.length - failed
    if (this.#isJson)
      process.stdout.write(`${JSON.stringify({ passed, failed, tookMs, steps: this.results })}\n`)
    else process.stdout.write(`\n${passed} passed, ${failed} failed\n`)
    return failed === 0 ? 0 : 1
  }

  #style(format: 'bold' | 'dim' | 'green' | 'red', text: string): string {
    return this.#isTerminal ? styleText(format, text) : text
  }
}

/** Throws when the condition does not hold; the text says what was found instead. */
export function expect(condition: boolean, found: string): asserts condition {
  if (!condition) throw new CulvertError('LAB', found)
}
