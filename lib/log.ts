/**
 * The one logger: JSON lines on standard output, constant message texts with variables as fields. Tokens and
 * keys never get here; the paths below are the last net, not the plan.
 */
import { pino, stdTimeFunctions, type Logger } from 'pino'

export type { Logger } from 'pino'

/** A logger whose lines carry `fields`; children made of it with `.child({ component })` follow its level. */
export function createLogger(fields: Record<string, string>, level: string): Logger {
  return pino({
    level,
    base: fields,
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: label => ({ level: label }) },
    redact: { paths: ['token', '*.token', 'key', '*.key', 'headers.authorization'], censor: '[redacted]' },
  })
}
