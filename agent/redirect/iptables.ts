/**
 * Runs the iptables programs inside a namespace. There are two backends in the field, nf_tables and legacy, and
 * a kernel may have only one of them: which one works is found out once, by asking it to check an empty table.
 */
import { writeSync } from 'node:fs'
import { Socket } from 'node:net'
import { CulvertError, errorText } from '../../lib/errors.ts'
import { openMemoryFile, openPipe, programPath, signalChild, startChild } from '../sys/children.ts'
import { closeFd } from '../sys/fd.ts'
import { inNetns } from '../sys/netns.ts'
import type { Abilities, Family } from './rule.ts'

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

/** A rule that needs what `Abilities.seesListeners` says. */
const SOCKET_TEST =
  '*nat\n:CULVERT_TEST - [0:0]\n-A CULVERT_TEST -p tcp -m socket --nowildcard -j RETURN\nCOMMIT\n'

/** The same for `Abilities.hasZones`. */
const ZONE_TEST = '*raw\n:CULVERT_TEST - [0:0]\n-A CULVERT_TEST -j CT --zone-orig 1\nCOMMIT\n'

export class Iptables implements Abilities {
  readonly variant: Variant
  /** Where not, the agent accepts what comes for ports that nobody listens on, and resets it. */
  seesListeners = false
  hasZones = false
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
        iptables.seesListeners = await iptables.#accepts(netnsFd, SOCKET_TEST)
        iptables.hasZones = await iptables.#accepts(netnsFd, ZONE_TEST)
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

  async #accepts(netnsFd: number, text: string): Promise<boolean> {
    return this.#restore(netnsFd, 4, text, ['--test']).then(
      () => true,
      () => false,
    )
  }

  async #restore(netnsFd: number, family: Family, text: string, options: string[]): Promise<void> {
    const lock = this.variant === 'legacy' ? ['-w', String(LOCK_WAIT_S)] : []
    await run(netnsFd, this.#program(family, 'restore'), ['--noflush', ...lock, ...options], text)
  }

  #program(family: Family, verb: 'save' | 'restore'): string {
    return `${family === 6 ? 'ip6tables' : 'iptables'}${this.#infix}-${verb}`
  }
}

/** Runs a program in the namespace with this input; gives its output. Throws `TOOL` or `REDIRECT`. */
async function run(netnsFd: number, program: string, args: string[], input: string): Promise<string> {
  const path = programPath(program)
  if (path === undefined)
    throw new CulvertError('TOOL', `${program} is not installed`, { hint: INSTALL_HINT })
  const output = openPipe()
  const complaint = openPipe()
  let stdin: number | undefined
  const ended = Promise.withResolvers<number>()
  let pid: number
  try {
    stdin = openMemoryFile('rules')
    // Where it was written it is not read: the child reads the same open file, from the beginning again.
    for (let at = 0, bytes = Buffer.from(input); at < bytes.length;)
      at += writeSync(stdin, bytes, at, bytes.length - at, at)
    const fds = [stdin, output.write, complaint.write]
    pid = inNetns(netnsFd, () =>
      startChild({
        path,
        argv: [program, ...args],
        env: { LC_ALL: 'C' },
        fds,
        onExit: ended.resolve,
      }),
    )
  } catch (cause) {
    closeFd(output.read)
    closeFd(complaint.read)
    throw new CulvertError('TOOL', `cannot run ${program}`, { cause })
  } finally {
    for (const fd of [stdin, output.write, complaint.write]) if (fd !== undefined) closeFd(fd)
  }
  const kill = () => signalChild(pid, 'SIGKILL')
  const timer = setTimeout(kill, TIMEOUT_MS)
  try {
    const [text, said, status] = await Promise.all([
      readAll(output.read, MAX_OUTPUT_BYTES, kill),
      readAll(complaint.read, MAX_ERROR_BYTES, () => undefined),
      ended.promise,
    ])
    if (status === 0) return text.bytes.toString('utf8')
    const why = text.isTooLong
      ? `more than ${MAX_OUTPUT_BYTES} bytes of rules`
      : said.bytes.toString('latin1').trim().replaceAll(/\s+/g, ' ') ||
        `ended with ${status < 0 ? `signal ${-status}` : `status ${status}`}`
    throw new CulvertError('REDIRECT', `${program}: ${why}`)
  } finally {
    clearTimeout(timer)
  }
}

/** Reads to the end, and keeps as much of it as it may; `tooLong` is called when that is not all. */
function readAll(
  fd: number,
  most: number,
  tooLong: () => void,
): Promise<{ readonly bytes: Buffer; readonly isTooLong: boolean }> {
  return new Promise(resolve => {
    const chunks: Buffer[] = []
    let length = 0
    const socket = new Socket({ fd, readable: true, writable: false })
    socket.on('error', () => undefined) // its exit status says what is wrong
    socket.on('data', (chunk: Buffer) => {
      if (length <= most && length + chunk.length > most) tooLong()
      length += chunk.length
      if (length <= most) chunks.push(chunk)
    })
    socket.on('close', () => resolve({ bytes: Buffer.concat(chunks), isTooLong: length > most }))
  })
}
