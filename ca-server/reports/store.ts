/**
 * Where observations outlive the server: a restart must not make encrypted pods look plain until their agents
 * have spoken again. With a world file this is a file, in a cluster it is the pods' own annotation (annotation.ts).
 */
import { mkdir, readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { CulvertError, errorCode } from '../../lib/errors.ts'
import { replaceFile } from '../atomic-file.ts'

export const OBSERVED_STATES = ['pending', 'enrolled', 'drifted', 'not-enrolled'] as const
export type ObservedState = (typeof OBSERVED_STATES)[number]

/** What an agent last said about one pod. */
export interface Observation {
  readonly podUid: string
  readonly namespace: string
  readonly name: string
  readonly node: string
  readonly state: ObservedState
  /** For people: why pending, what drifted. */
  readonly detail: string
  readonly observedAtMs: number
  /** Which start of the node's agent said so. */
  readonly instance: string
  readonly startedAtMs: number
}

export interface ObservedStore {
  /** Everything that was recorded and not removed. Throws `INPUT` when it cannot be read. */
  load(): Promise<readonly Observation[]>
  /** Ends when the change is durable. */
  record(changed: readonly Observation[], removedUids: readonly string[]): Promise<void>
}

/** Where observations live somewhere else: in the pods' own annotation. */
export const NO_STORE: ObservedStore = { load: () => Promise.resolve([]), record: () => Promise.resolve() }

const FORMAT = 1

/** A store in one JSON file, replaced atomically. Changes that come while it is written share the next write. */
export class FileObservedStore implements ObservedStore {
  readonly #path: string
  readonly #all = new Map<string, Observation>()
  #next: Promise<void> | undefined
  #writing: Promise<void> = Promise.resolve()

  constructor(path: string) {
    this.#path = path
  }

  async load(): Promise<readonly Observation[]> {
    await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 })
    let text: string
    try {
      text = await readFile(this.#path, 'utf8')
    } catch (err) {
      if (errorCode(err) === 'ENOENT') return []
      throw new CulvertError('INPUT', `${this.#path} cannot be read`, { cause: err })
    }
    this.#all.clear()
    for (const observation of parseObservations(text, this.#path))
      this.#all.set(observation.podUid, observation)
    return [...this.#all.values()]
  }

  record(changed: readonly Observation[], removedUids: readonly string[]): Promise<void> {
    for (const observation of changed) this.#all.set(observation.podUid, observation)
    for (const uid of removedUids) this.#all.delete(uid)
    this.#next ??= this.#writing
      .catch(() => undefined) // whoever waited for that write has been told
      .then(() => {
        this.#next = undefined
        this.#writing = this.#write()
        return this.#writing
      })
    return this.#next
  }

  async #write(): Promise<void> {
    const text = JSON.stringify({ format: FORMAT, pods: [...this.#all.values()] })
    await replaceFile(this.#path, text, 0o600)
  }
}

function parseObservations(text: string, path: string): Observation[] {
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch (err) {
    throw new CulvertError('INPUT', `${path} is not JSON`, { cause: err })
  }
  const { format, pods } = (parsed ?? {}) as { format?: unknown; pods?: unknown }
  if (format !== FORMAT || !Array.isArray(pods))
    throw new CulvertError('INPUT', `${path} is not a file of observations in format ${FORMAT}`)
  return pods.map((pod, at) => {
    if (isObservation(pod)) return pod
    throw new CulvertError('INPUT', `${path}: pods[${at}] is not an observation`)
  })
}

function isObservation(value: unknown): value is Observation {
  if (typeof value !== 'object' || value === null) return false
  const pod = value as Record<string, unknown>
  return (
    ['podUid', 'namespace', 'name', 'node', 'detail', 'instance'].every(
      field => typeof pod[field] === 'string',
    ) &&
    ['observedAtMs', 'startedAtMs'].every(field => typeof pod[field] === 'number') &&
    OBSERVED_STATES.some(state => state === pod['state'])
  )
}
