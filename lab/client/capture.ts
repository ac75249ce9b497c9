/** Capturing what is on a link, with nothing of it missing at the end. */
import { spawn, type ChildProcessByStdio } from 'node:child_process'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { CulvertError } from '../../lib/errors.ts'
import { toolEnv } from '../run.ts'

const START_TIMEOUT_MS = 5000
const DRAIN_TIMEOUT_MS = 2000

/** tcpdump's options for a capture of whole packets, written at once, as root (there may be no other user). */
export const CAPTURE_ARGS: readonly string[] = [
  '-i',
  'eth0',
  '-s',
  '0',
  '-U',
  '--immediate-mode',
  '-Z',
  'root',
]

export class Capture {
  readonly #child: ChildProcessByStdio<null, Readable, Readable>
  readonly #packets: Buffer[] = []
  readonly #closed: Promise<void>
  #said = ''

  private constructor(argv: readonly string[]) {
    const [command = '', ...args] = argv
    this.#child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env: toolEnv() })
    const closed = Promise.withResolvers<void>()
    this.#closed = closed.promise
    this.#child.once('error', err => {
      this.#said += err.message
      closed.resolve()
    })
    this.#child.once('close', () => closed.resolve())
    this.#child.stdout.on('data', (chunk: Buffer) => void this.#packets.push(chunk))
    this.#child.stderr.on('data', (chunk: Buffer) => {
      this.#said += chunk.toString()
    })
  }

  /** Starts tcpdump, which `argv` ends in; resolves once it listens. `filter` is its own language. Throws `TOOL`. */
  static async start(enter: (argv: readonly string[]) => string[], filter: string): Promise<Capture> {
    const capture = new Capture(enter(['tcpdump', ...CAPTURE_ARGS, '-w', '-', filter]))
    const isListening = () => capture.#said.includes('listening on')
    for (const deadline = Date.now() + START_TIMEOUT_MS; !isListening(); await sleep(5)) {
      if (capture.#child.exitCode === null && Date.now() < deadline) continue
      capture.#child.kill('SIGKILL')
      throw new CulvertError('TOOL', `tcpdump did not start: ${capture.#said.trim() || 'no message'}`)
    }
    return capture
  }

  /** Ends the capture and gives it as a pcap file's bytes: every packet that the kernel saw until now. */
  async stop(): Promise<Buffer> {
    for (const deadline = Date.now() + DRAIN_TIMEOUT_MS; Date.now() < deadline && !(await this.#isDrained());)
      await sleep(20)
    this.#child.kill('SIGTERM')
    await this.#closed
    return Buffer.concat(this.#packets)
  }

  /** Asks tcpdump for its counts: packets may still be between the kernel and the file. */
  async #isDrained(): Promise<boolean> {
    const from = this.#said.length
    if (this.#child.exitCode !== null || !this.#child.kill('SIGUSR1')) return true
    for (const deadline = Date.now() + 500; Date.now() < deadline; await sleep(5)) {
      const counts =
        /(\d+) packets? captured\D+(\d+) packets? received by filter\D+(\d+) packets? dropped/.exec(
          this.#said.slice(from),
        )
      if (!counts) continue
      const [captured, received, dropped] = counts.slice(1).map(Number) as [number, number, number]
      return captured + dropped >= received
    }
    return false
  }
}
