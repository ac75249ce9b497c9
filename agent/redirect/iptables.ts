/**
 * Runs the iptables programs inside a namespace. There are two backends in the field, nf_tables and legacy, and
 * a kernel may have only one of them: which one works is found out once, by asking it to check an empty table.
 */
import { spawn } from 'node:child_process'
import { CulvertError, errorCode, errorText } from '../../lib/errors.ts'
import { inNetns } from '../sys/netns.ts'
import type { Family } from './rules.ts'

export type Variant = 'nft' | 'legacy'

/** Backends in the order of preference, each with what stands between `iptables` and `-save` in its programs' names. */
const CANDIDATES: readonly (readonly [Variant, infix: string])[] = [
  ['nft', '-nft'],
  ['legacy', '-legacy'],
  ['nft', ''],
]

/** A program that hangs is killed; the lock of the legacy backend is waited for less long than that. */
const TIMEOUT_MS = 15_000
const LOCK_WAIT_S = 5
/** A pod may fill its tables with rules of its own; beyond this we do not read them. */
const MAX_OUTPUT_BYTES = 16 * 1024 * 1024
const MAX_ERROR_BYTES = 4096

const INSTALL_HINT = 'install the package iptables in the image or on the machine'

export class Iptables {
  readonly variant: Variant
  /** Between `iptables` and `-save`. */
  readonly #infix: string

  private constructor(variant: Variant, infix: string) {
    this.variant = variant
    this.#infix = infix
  }

  /**
   * The backend that works in this namespace: nf_tables before legacy, because the kernel announces changes
   * made through it. Throws `TOOL` when there is none.
   */
  static async detect(netnsFd: number, candidates = CANDIDATES): Promise<Iptables> {
    const problems: string[] = []
    for (const [variant, infix] of candidates) {
      const iptables = new Iptables(variant, infix)
      try {
        await iptables.#restore(netnsFd, 4, '*nat\nCOMMIT\n', ['--test'])
        return iptables
      } catch (err) {
        problems.push(errorText(err))
      }
    }
    throw new CulvertError('TOOL', `no usable iptables: ${problems.join('; ')}`, { hint: INSTALL_HINT })
  }

  /** All tables with their counters, as iptables-save prints them. Throws `TOOL` or `REDIRECT`. */
  save(netnsFd: number, family: Family): Promise<string> {
    return run(netnsFd, this.#program(family, 'save'), ['-c'], '')
  }

  /** Applies `text`, each of its tables in one transaction; what it does not name stays. Throws `TOOL` or `REDIRECT`. */
  restore(netnsFd: number, family: Family, text: string): Promise<void> {
    return this.#restore(netnsFd, family, text, ['--counters'])
  }

  async #restore(netnsFd: number, family: Family, text: string, options: string[]): Promise<void> {
    const lock = this.variant === 'legacy' ? ['-w', String(LOCK_WAIT_S)] : []
    await run(netnsFd, this.#program(family, 'restore'), ['--noflush', ...lock, ...options], text)
  }

  #program(family: Family, verb: 'save' | 'restore'): string {
    return `${family === 6 ? 'ip6tables' : 'iptables'}${this.#infix}-${verb}`
  }
}

function run(netnsFd: number, program: string, args: string[], input: string): Promise<string> {
  return new Promise((resolve, reject) => {
    // The fork happens inside the call, so the child is born in the namespace.
    const child = inNetns(netnsFd, () =>
      spawn(program, args, {
        stdio: 'pipe',
        timeout: TIMEOUT_MS,
        killSignal: 'SIGKILL',
        env: { PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin:/usr/bin:/bin`, LC_ALL: 'C' },
      }),
    )
    const output: Buffer[] = []
    let outputBytes = 0
    let complaint = ''
    child.on('error', cause => {
      const isMissing = errorCode(cause) === 'ENOENT'
      reject(
        isMissing
          ? new CulvertError('TOOL', `${program} is not installed`, { hint: INSTALL_HINT })
          : new CulvertError('TOOL', `cannot run ${program}`, { cause }),
      )
    })
    child.stdin.on('error', () => undefined) // it ended without reading: its exit status says why
    child.stdout.on('error', () => undefined)
    child.stderr.on('error', () => undefined)
    child.stdout.on('data', (chunk: Buffer) => {
      outputBytes += chunk.length
      if (outputBytes > MAX_OUTPUT_BYTES) child.kill('SIGKILL')
      else output.push(chunk)
    })
    child.stderr.on('data', (chunk: Buffer) => {
      if (complaint.length < MAX_ERROR_BYTES) complaint += chunk.toString('latin1')
    })
    child.on('close', (code, signal) => {
      if (code === 0) return resolve(Buffer.concat(output).toString('utf8'))
      const why =
        outputBytes > MAX_OUTPUT_BYTES
          ? `more than ${MAX_OUTPUT_BYTES} bytes of rules`
          : complaint.trim().replaceAll(/\s+/g, ' ') || `ended with ${signal ?? `status ${code}`}`
      reject(new CulvertError('REDIRECT', `${program}: ${why}`))
    })
    child.stdin.end(input)
  })
}
