/** What the bench ran on, and at which commit. */
import { readFileSync } from 'node:fs'
import { cpus, loadavg, release, totalmem, type as systemName } from 'node:os'
import { fileURLToPath } from 'node:url'
import { run } from '../lab/run.ts'
import { readIfThere } from '../lab/files.ts'
import type { Machine } from './model.ts'

/** The directory of the project. */
export const PROJECT: string = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '')

export function machineCores(): number {
  return cpus().length
}

/** How many descriptors a process may have open: what those started from here inherit. */
export function descriptorLimit(): number {
  const limits = readFileSync('/proc/self/limits', 'latin1')
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(limits)?.[1]
  return hard === 'unlimited' ? 1_048_576 : Number(hard)
}

export function describeMachine(): Machine {
  const osRelease = readIfThere('/etc/os-release') ?? ''
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: machineCores(),
    kernel: release(),
    memoryBytes: totalmem(),
    node: process.version,
    os: /^PRETTY_NAME="?([^"\n]*)/m.exec(osRelease)?.[1] ?? systemName(),
    loadAtStart: loadavg()[0] ?? 0,
  }
}

/** The commit that is checked out, and whether the tree has changes beyond it. */
export async function describeCommit(): Promise<{ commit: string; isDirty: boolean }> {
  const git = async (...args: string[]) => {
    const { code, stdout } = await run(['git', '-C', PROJECT, ...args])
    return code === 0 ? stdout.toString().trim() : undefined
  }
  const commit = await git('rev-parse', 'HEAD').catch(() => undefined)
  if (commit === undefined) return { commit: 'unknown', isDirty: false }
  return { commit, isDirty: (await git('status', '--porcelain')) !== '' }
}

/** A text without where on this machine the project lies. */
export function withoutPlace(text: string): string {
  return text.replaceAll(`${PROJECT}/`, './').replaceAll(PROJECT, '.')
}
