/** A capture in memory: started, and stopped with nothing of it missing. */
import { spawn, type ChildProcessByStdio } from 'node:child_process'
import type { Readable } from 'node:stream'
import { CulvertError } from '../../lib/errors.ts'
import { COMPILE_CACHE_DIR } from '../../lib/compile-cache.ts'
import { toolEnv } from '../../lib/tool-path.ts'
import { FILE_HEADER_BYTES } from '../capture/pcap.ts'

export class Capture {
  readonly #child: ChildProcessByStdio<null, Readable, Readable>
  readonly #chunks: Buffer[] = []
  readonly #closed: Promise<void>
  #bytes = 0
  #said = ''

  private constructor(argv: readonly string[], listening: () => void) {
    const [command = '', ...args] = argv
    this.#child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...toolEnv(), NODE_COMPILE_CACHE: COMPILE_CACHE_DIR },
    })
    const closed = Promise.withResolvers<void>()
    this.#closed = closed.promise
    this.#child.once('error', err => {
      this.#said += err.message
      closed.resolve()
    })
    this.#child.once('close', () => closed.resolve())
    this.#child.stdout.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk)
      this.#bytes += chunk.length
      if (this.#bytes >= FILE_HEADER_BYTES) listening()
    })
    this.#child.stderr.on('data', (chunk: Buffer) => {
      this.#said += chunk.toString()
    })
  }

  /** Starts the program that `argv` is the command line of; resolves once it listens. Throws `TOOL`. */
  static async start(argv: readonly string[]): Promise<Capture> {
    const listening = Promise.withResolvers<boolean>()
    const capture = new Capture(argv, () => listening.resolve(true))
    if (await Promise.race([listening.promise, capture.#closed.then(() => false)])) return capture
    throw new CulvertError('TOOL', `nothing can be captured: ${capture.#said.trim() || 'no message'}`)
  }

  /** Ends the capture and gives it as a pcap file's bytes: every packet that the link saw until now. Throws `LAB` when some were lost. */
  async stop(): Promise<Buffer> {
    this.#child.kill('SIGTERM')
    await this.#closed
    if (this.#said) throw new CulvertError('LAB', `the capture is not whole: ${this.#said.trim()}`)
    return Buffer.concat(this.#chunks)
  }
}
