/**
 * HTTP/2 implementations that are not ours, in programs of their own (`test/conformance/peers`), told what to do line by
 * line: the scenarios are written once, here in TypeScript, for all of them. Each line is a JSON object; the first one
 * carries what the program is to be, so that no key is in an argument list or a file. A number names a stream: the test's
 * own choice where the peer is the client, the order of arrival where it is the server.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { toolPath } from '../../lib/tool-path.ts'
import type { PodCertificate } from '../../agent/worker/messages.ts'
import { goPeer } from './foreign-go.ts'
import type { TestPod } from './pods.ts'

export type ForeignKind = 'python' | 'go' | 'node'

export type ForeignOp =
  | { readonly op: 'connect'; readonly id: number; readonly authority: string }
  | { readonly op: 'answer'; readonly id: number; readonly status: number }
  /** Random bytes; `sent` follows when the library has taken the last of them. */
  | { readonly op: 'send'; readonly id: number; readonly bytes: number }
  | { readonly op: 'end' | 'pause' | 'resume' | 'echo'; readonly id: number }
  | { readonly op: 'reset'; readonly id: number; readonly code: number }
  /** Orderly, with open streams going on. */
  | { readonly op: 'goaway' }

export interface ForeignEvent {
  readonly event: 'ready' | 'request' | 'status' | 'data' | 'sent' | 'end' | 'reset' | 'goaway' | 'failed'
  readonly id?: number
  readonly authority?: string
  readonly status?: number
  /** Of everything sent, or received until the end. */
  readonly bytes?: number
  readonly sha256?: string
  readonly code?: number
  readonly error?: string
}

export interface ForeignOptions {
  /** Where it runs. */
  readonly pod: TestPod
  readonly certificate: PodCertificate
  /** `ip:port` to connect to or to listen on. */
  readonly address: string
  readonly role: 'client' | 'server'
  /** Server: streams it allows at once. @default 100 */
  readonly maxStreams?: number
}

const PEERS = fileURLToPath(new URL('../conformance/peers/', import.meta.url))

async function argvOf(kind: ForeignKind): Promise<string[]> {
  // Debian's Python, not another one that is first on the path: python3-h2 is there.
  if (kind === 'python') return ['/usr/bin/python3', `${PEERS}peer.py`]
  if (kind === 'node') return [process.execPath, `${PEERS}peer.ts`]
  return [await goPeer(`${PEERS}peer.go`)]
}

export class ForeignPeer {
  readonly events: ForeignEvent[] = []
  readonly #child: ChildProcess
  readonly #watchers = new Set<() => void>()
  #end: string | undefined
  #errors = ''

  private constructor(child: ChildProcess) {
    this.#child = child
    child.stderr!.on(
      'data',
      (chunk: Buffer) => (this.#errors = (this.#errors + chunk.toString()).slice(-4000)),
    )
    child.stdin!.on('error', () => undefined) // it may have ended
    createInterface({ input: child.stdout! }).on('line', line => {
      this.events.push(JSON.parse(line) as ForeignEvent)
      this.#wake()
    })
    const ended = (how: string) => {
      this.#end ??= how
      this.#wake()
    }
    child.on('error', err => ended(err.message))
    child.on('close', (code, signal) => ended(`it ended (${code ?? signal})`))
  }

  /** Starts it in its pod; resolves when a client is connected, a server listens. */
  static async start(t: Test, kind: ForeignKind, options: ForeignOptions): Promise<ForeignPeer> {
    const { pod, certificate, address, role, maxStreams = 100 } = options
    const [program, ...args] = ['ip', 'netns', 'exec', pod.netns, ...(await argvOf(kind))] as [
      string,
      ...string[],
    ]
    const child = spawn(program, args, { env: { ...process.env, PATH: toolPath() } })
    const peer = new ForeignPeer(child)
    t.teardown(async () => {
      child.stdin.end() // it ends with its input
      const timer = setTimeout(() => child.kill('SIGKILL'), 2000)
      if (child.exitCode === null && child.signalCode === null) await once(child, 'close')
      clearTimeout(timer)
    })
    const { key, chain, roots } = certificate
    peer.#write({ role, address, key, chain, roots, maxStreams })
    await peer.next('ready')
    return peer
  }

  do(op: ForeignOp): void {
    this.#write(op)
  }

  /** The first such event, past or future, of the stream if one is named. Rejects when the program ends before. */
  next(event: ForeignEvent['event'], id?: number): Promise<ForeignEvent> {
    return new Promise((resolve, reject) => {
      const look = () => {
        const found = this.events.find(each => each.event === event && (id === undefined || each.id === id))
        const failed = this.events.find(
          each => each.event === 'failed' && (each.id === id || each.id === undefined),
        )
        if (found) resolve(found)
        else if (failed) reject(new Error(`the foreign peer failed: ${failed.error}`))
        else if (this.#end !== undefined)
          reject(new Error(`waiting for '${event}' of stream ${id}: ${this.#end}\n${this.#errors}`))
        else return
        this.#watchers.delete(look)
      }
      this.#watchers.add(look)
      look()
    })
  }

  /** Reports whether such an event has come. */
  has(event: ForeignEvent['event'], id: number): boolean {
    return this.events.some(each => each.event === event && each.id === id)
  }

  #write(line: object): void {
    this.#child.stdin!.write(`${JSON.stringify(line)}\n`)
  }

  #wake(): void {
    for (const look of this.#watchers) look()
  }
}
