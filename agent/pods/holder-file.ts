/**
 * The record of all holders, `holders.json` in the run directory, so that the next agent finds them. Agents that
 * run at the same time take turns by a lock that a dead one cannot keep. It holds numbers only, no secrets.
 */
import { closeSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CulvertError, errorCode } from '../../lib/errors.ts'
import { tryLockFile } from '../sys/fd.ts'
import type { PodListeners } from '../worker/messages.ts'
import type { Holder } from './holder.ts'

export interface HolderRecord extends Holder {
  readonly netnsInode: number
  /** The descriptors in the holder. */
  readonly fds: PodListeners
}

export type HolderRecords = Record<string, HolderRecord>

const LOCK_RETRY_MS = 5
const LOCK_TIMEOUT_MS = 5000

export class HolderFile {
  readonly #path: string
  readonly #runDir: string

  constructor(runDir: string) {
    this.#runDir = runDir
    this.#path = join(runDir, 'holders.json')
  }

  /** What is on record by pod UID; nothing when there is no file yet. Throws `INPUT` when it is malformed. */
  read(): HolderRecords {
    let text: string
    try {
      text = readFileSync(this.#path, 'utf8')
    } catch (err) {
      if (errorCode(err) === 'ENOENT') return Object.create(null) as HolderRecords
      throw err
    }
    return parseRecords(text, this.#path)
  }

  /** Replaces the record as a whole. */
  write(pods: HolderRecords): void {
    const next = `${this.#path}.${process.pid}`
    writeFileSync(next, `${JSON.stringify({ pods })}\n`, { mode: 0o600 })
    renameSync(next, this.#path)
  }

  /** Runs `work` while no other agent reads or writes the record. Throws `TIMEOUT` when one does not let go. */
  async locked<T>(work: () => Promise<T>): Promise<T> {
    const fd = openSync(join(this.#runDir, 'holders.lock'), 'a', 0o600)
    try {
      for (const deadline = Date.now() + LOCK_TIMEOUT_MS; !tryLockFile(fd); await sleep(LOCK_RETRY_MS))
        if (Date.now() > deadline)
          throw new CulvertError('TIMEOUT', `another agent keeps ${this.#runDir}/holders.lock locked`)
      return await work()
    } finally {
      closeSync(fd)
    }
  }
}

/** Throws `INPUT` naming the file and the field. */
export function parseRecords(text: string, path: string): HolderRecords {
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch (cause) {
    throw new CulvertError('INPUT', `${path} is not JSON`, { cause })
  }
  const pods = isObject(parsed) ? parsed['pods'] : undefined
  if (!isObject(pods)) throw new CulvertError('INPUT', `${path}: pods is not an object`)
  const records: HolderRecords = Object.create(null) as HolderRecords
  for (const [uid, entry] of Object.entries(pods)) {
    const fds = isObject(entry) ? entry['fds'] : undefined
    if (!isObject(entry) || !isObject(fds))
      throw new CulvertError('INPUT', `${path}: pods.${uid} is not a record`)
    const number = (from: Record<string, unknown>, field: string): number => {
      const value = from[field]
      if (Number.isSafeInteger(value) && (value as number) > 0) return value as number
      throw new CulvertError('INPUT', `${path}: pods.${uid}: ${field} is not a positive number`)
    }
    records[uid] = {
      pid: number(entry, 'pid'),
      startTime: number(entry, 'startTime'),
      netnsInode: number(entry, 'netnsInode'),
      fds: {
        outbound: number(fds, 'outbound'),
        inbound: number(fds, 'inbound'),
        hbone: number(fds, 'hbone'),
      },
    }
  }
  return records
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
