/**
 * Reading untyped objects field by field. Every problem is noted with the path of its field and reading goes
 * on with a harmless value, so that whoever wrote the file sees all problems at once. A value that was read
 * while problems were noted must not be used: the caller checks the list first.
 */
import { canonicalIp } from '../address.ts'
import { errorText } from '../errors.ts'

/** A type's fields, each also allowed to be undefined: what `strip` takes. */
type Loose<T> = { [K in keyof T]: T[K] | undefined }

/** The object without the fields that are undefined, so that absent stays absent. */
export function strip<T extends object>(loose: Loose<T>): T {
  const found: Record<string, unknown> = {}
  for (const key in loose) if (loose[key] !== undefined) found[key] = loose[key]
  return found as T
}

/** Where a mapping is, in the one around it: only put into words for who has a problem. */
interface Place {
  readonly around: Fields
  readonly key: string
  /** In the list that stands under the key. */
  readonly index?: number
}

const NOTHING: Readonly<Record<string, unknown>> = {}

/** One mapping of the document. An absent one reads like an empty one. */
export class Fields {
  readonly problems: string[]
  readonly #place: string | Place
  readonly #values: Readonly<Record<string, unknown>>

  constructor(value: unknown, place: string | Place, problems: string[]) {
    this.#place = place
    this.problems = problems
    const isMapping = typeof value === 'object' && value !== null && !Array.isArray(value)
    if (!isMapping && value !== undefined && value !== null)
      problems.push(`${this.path || 'the document'} is ${nameOf(value)}, not a mapping`)
    this.#values = isMapping ? (value as Record<string, unknown>) : NOTHING
  }

  get path(): string {
    if (typeof this.#place === 'string') return this.#place
    const { around, key, index } = this.#place
    return index === undefined ? around.pathOf(key) : `${around.pathOf(key)}[${index}]`
  }

  /** Reports whether the field is there and not null: Kubernetes takes null for absent. */
  has(key: string): boolean {
    return this.get(key) !== undefined
  }

  get(key: string): unknown {
    return Object.hasOwn(this.#values, key) ? (this.#values[key] ?? undefined) : undefined
  }

  pathOf(key: string): string {
    const step = /^[A-Za-z0-9_-]+$/.test(key) ? key : `["${key}"]`
    return this.path && !step.startsWith('[') ? `${this.path}.${step}` : `${this.path}${step}`
  }

  problem(key: string, text: string): void {
    this.problems.push(`${this.pathOf(key)} ${text}`)
  }

  child(key: string): Fields {
    return new Fields(this.get(key), { around: this, key }, this.problems)
  }

  /** The elements of a list, whatever they are; an absent list is empty. */
  list(key: string): unknown[] {
    const value = this.get(key)
    if (value === undefined) return []
    if (Array.isArray(value)) return value
    this.problem(key, `is ${nameOf(value)}, not a list`)
    return []
  }

  /** The elements of a list of mappings. */
  items(key: string): Fields[] {
    return this.list(key).map((item, index) => {
      if (item === null) this.problems.push(`${this.pathOf(key)}[${index}] is empty`)
      return new Fields(item, { around: this, key, index }, this.problems)
    })
  }

  text(key: string): string | undefined {
    const value = this.get(key)
    if (value === undefined || typeof value === 'string') return value
    this.problem(key, `is ${nameOf(value)}, not text${quotingHint(value)}`)
    return undefined
  }

  requiredText(key: string): string {
    const value = this.get(key)
    if (value === undefined || value === '') this.problem(key, 'is required')
    return this.text(key) ?? ''
  }

  textList(key: string): string[] {
    return this.list(key).map((item, at) => {
      if (typeof item === 'string') return item
      this.problems.push(`${this.pathOf(key)}[${at}] is ${nameOf(item)}, not text${quotingHint(item)}`)
      return ''
    })
  }

  /** A mapping of text to text; undefined when it is absent. */
  textMap(key: string): Record<string, string> | undefined {
    if (!this.has(key)) return undefined
    const map = this.child(key)
    return Object.fromEntries(Object.keys(map.#values).map(name => [name, map.text(name) ?? '']))
  }

  integer(key: string, min: number, max: number): number | undefined {
    const value = this.get(key)
    if (value === undefined) return undefined
    if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value
    this.problem(key, `is ${nameOf(value)}, not a whole number from ${min} to ${max}`)
    return undefined
  }

  requiredPort(key: string): number {
    if (!this.has(key)) this.problem(key, 'is required')
    return this.integer(key, 1, 65535) ?? 0
  }

  boolean(key: string): boolean | undefined {
    const value = this.get(key)
    if (value === undefined || typeof value === 'boolean') return value
    this.problem(key, `is ${nameOf(value)}, neither true nor false`)
    return undefined
  }

  choice<T extends string>(key: string, choices: readonly T[]): T | undefined {
    const value = this.text(key)
    const found = choices.find(choice => choice === value)
    if (value !== undefined && found === undefined)
      this.problem(key, `is '${value}', not one of ${choices.join(', ')}`)
    return found
  }

  /** The canonical text of an IP address; the field must be there. */
  ip(key: string): string {
    const text = this.requiredText(key)
    return text === '' ? '' : (this.canonical(key, text) ?? '')
  }

  /** The canonical text of `text`, which came from the field `key`; notes the problem when it is no address. */
  canonical(key: string, text: string): string | undefined {
    try {
      return canonicalIp(text)
    } catch (err) {
      this.problem(key, `is ${errorText(err)}`)
      return undefined
    }
  }
}

function nameOf(value: unknown): string {
  if (value === null || value === undefined) return 'empty'
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'object') return 'a mapping'
  return typeof value === 'string' ? `'${value}'` : JSON.stringify(value)
}

// YAML reads a bare `true` or `8080` as something other than text; Kubernetes refuses that too.
function quotingHint(value: unknown): string {
  return typeof value === 'boolean' || typeof value === 'number' ? `: write it as "${value}"` : ''
}
