/** Files that others read while we write them: replaced in one step, never seen half written. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { errorCode } from '../lib/errors.ts'

/** The end of a log file, at most so many lines and 2000 characters; empty when there is none. */
export function lastLines(path: string, count: number): string {
  const lines = (readIfThere(path) ?? '').trimEnd().split('\n')
  return lines.slice(-count).join('\n').slice(-2000)
}

let counter = 0

/** Replaces a file. Readers see the old text or the new one. `mode` is the new file's. @default 0644 */
export function replaceFile(path: string, text: string, mode: number = 0o644): void {
  const temporary = `${path}.${process.pid}.${++counter}`
  writeFileSync(temporary, text, { mode, flag: 'wx' })
  renameSync(temporary, path)
}

/** The text of a file, or undefined when there is none. */
export function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (err) {
    if (errorCode(err) === 'ENOENT' || errorCode(err) === 'ENOTDIR') return undefined
    throw err
  }
}
