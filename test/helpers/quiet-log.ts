/** A logger that keeps what was logged, for tests that look at it. */
import { Writable } from 'node:stream'
import { pino } from 'pino'
import type { Logger } from '../../lib/log.ts'

export interface Line {
  readonly level: string
  readonly msg: string
  readonly [field: string]: unknown
}

export function quietLog(level = 'debug'): { log: Logger; lines: Line[] } {
  const lines: Line[] = []
  const into = new Writable({
    write(chunk: Buffer, _, done) {
      lines.push(JSON.parse(chunk.toString()) as Line)
      done()
    },
  })
  return { log: pino({ level, formatters: { level: label => ({ level: label }) } }, into), lines }
}
