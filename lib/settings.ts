/**
 * Settings from the environment, as a DaemonSet gives them. Every problem is collected, so that an operator
 * sees them all at once and not one a restart.
 */
import { Cidr } from './address.ts'
import { CulvertError, errorText } from './errors.ts'

const DURATION_UNITS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** Milliseconds of `250ms`, `10s`, `1m30s`, `24h`; a bare number is seconds. Throws `INPUT`. */
export function parseDurationMs(text: string): number {
  let total = NaN
  if (/^\d+(\.\d+)?$/.test(text)) total = Number(text) * 1000
  else if (/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(text)) {
    total = 0
    for (const [, number, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g))
      total += Number(number) * DURATION_UNITS[unit!]!
  }
  if (total <= Number.MAX_SAFE_INTEGER) return total
  throw new CulvertError('INPUT', `'${text}' is not a duration (like 250ms, 10s, 1m30s, 24h)`)
}

export class Settings {
  readonly #env: Readonly<Record<string, string | undefined>>
  readonly problems: string[] = []

  constructor(env: Readonly<Record<string, string | undefined>>) {
    this.#env = env
  }

  /** Text; undefined or empty means the default, and without one it is a problem. */
  string(name: string, fallback?: string): string {
    return this.#read(name, fallback, text => text)
  }

  optional(name: string): string | undefined {
    return this.#env[name] || undefined
  }

  integer(name: string, fallback: number, min = 0, max = Number.MAX_SAFE_INTEGER): number {
    return this.#read(name, fallback, text => {
      const value = Number(text)
      if (!/^-?\d+$/.test(text) || value < min || value > max)
        throw new Error(`'${text}' is not a whole number from ${min} to ${max}`)
      return value
    })
  }

  port(name: string, fallback: number): number {
    return this.integer(name, fallback, 0, 65535)
  }

  boolean(name: string, fallback: boolean): boolean {
    return this.#read(name, fallback, text => {
      if (text === 'true' || text === '1') return true
      if (text === 'false' || text === '0') return false
      throw new Error(`'${text}' is neither true nor false`)
    })
  }

  /** A duration, given back in milliseconds. */
  durationMs(name: string, fallbackMs: number): number {
    return this.#read(name, fallbackMs, parseDurationMs)
  }

  choice<T extends string>(name: string, choices: readonly T[], fallback: T): T {
    return this.#read(name, fallback, text => {
      const found = choices.find(choice => choice === text)
      if (found === undefined) throw new Error(`'${text}' is not one of ${choices.join(', ')}`)
      return found
    })
  }

  cidrs(name: string, fallback: Cidr[] = []): Cidr[] {
    return this.#read(name, fallback, text => text.split(',').map(part => Cidr.parse(part)))
  }

  /** An https URL. */
  url(name: string, fallback?: string): URL {
    return this.#read(name, fallback === undefined ? undefined : new URL(fallback), text => {
      const url = URL.parse(text)
      if (url?.protocol !== 'https:') throw new Error(`'${text}' is not an https URL`)
      return url
    })
  }

  /** Throws one `CONFIG` error that names every problem, if there was any. */
  check(): void {
    if (this.problems.length > 0) throw new CulvertError('CONFIG', this.problems.join('; '))
  }

  #read<T>(name: string, fallback: T | undefined, parse: (text: string) => T): T {
    const text = this.#env[name]
    if (text === undefined || text === '') {
      if (fallback === undefined) this.problems.push(`${name} is not set`)
      return fallback as T // checked by check() before anyone uses it
    }
    try {
      return parse(text)
    } catch (err) {
      this.problems.push(`${name}: ${errorText(err)}`)
      return fallback as T
    }
  }
}
