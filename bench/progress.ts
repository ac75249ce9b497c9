/**
 * What the bench says while it runs, on standard error: on a terminal the turn that is on in one line, elsewhere a line
 * for each figure.
 */
import { printable } from '../lib/printable.ts'
import type { ArmName, Gap, MetricInfo } from './model.ts'
import { figure } from './report-numbers.ts'
import type { Progress } from './recorder.ts'

export class ProgressLines implements Progress {
  readonly #rounds: number
  readonly #turns: number
  readonly #isLive: boolean
  #turn = 0
  #label = ''
  #beganMs = 0
  #values: string[] = []

  constructor(rounds: number, arms: number) {
    this.#rounds = rounds
    this.#turns = rounds * arms
    this.#isLive = process.stderr.isTTY
  }

  note(text: string): void {
    this.#write(`bench: ${text}\n`)
  }

  turn(round: number, arm: ArmName): void {
    this.#turn++
    this.#label = `round ${round}/${this.#rounds}  ${arm.padEnd(8)}`
    this.#beganMs = performance.now()
    this.#values = []
    if (!this.#isLive) this.#write(`${this.#label}turn ${this.#turn} of ${this.#turns}\n`)
  }

  measuring(what: string): void {
    if (this.#isLive) this.#live(`${this.#label}${this.#values.slice(-4).join('  ')}  … ${what}`)
  }

  measured({ id, unit }: MetricInfo, value: number): void {
    const text = `${id} ${figure(value)} ${unit}`
    this.#values.push(text)
    if (!this.#isLive) this.#write(`${this.#label}${text}\n`)
  }

  gap({ arm, metric, round, why }: Gap): void {
    this.#write(`round ${round}/${this.#rounds}  ${arm.padEnd(8)}${metric}: ${printable(why, 500)}\n`)
  }

  turnEnded(): void {
    const seconds = ((performance.now() - this.#beganMs) / 1000).toFixed(0)
    this.#write(`${this.#label}${this.#values.length} figures in ${seconds} s\n`)
  }

  #live(text: string): void {
    process.stderr.write(`\r\u001b[K${text.slice(0, (process.stderr.columns || 80) - 1)}`)
  }

  #write(line: string): void {
    process.stderr.write(this.#isLive ? `\r\u001b[K${line}` : line)
  }
}
