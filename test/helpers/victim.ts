/**
 * Two pods of the mesh whose agent is a process of its own, a pod outside the mesh to attack from, and the means to
 * see what became of the agent: alive, serving, how much memory and how many descriptors it holds.
 */
import { fork, type ChildProcess } from 'node:child_process'
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from 'node:tls'
import type { Test } from 'tap'
import { DEFAULT_SESSION } from '../../agent/hbone/limits.ts'
import { PORT } from '../../agent/ports.ts'
import { DEFAULT_PROXY, type ProxyOptions } from '../../agent/proxy/pod-context.ts'
import type { ConnectionRecord, FromWorker, PodCertificate } from '../../agent/worker/messages.ts'
import { capture } from './mesh-pair.ts'
import { connectFrom, makePods, serve, type TestPod } from './pods.ts'
import { createRoot, issueLeaf, type Authority, type LeafOptions } from './test-pki.ts'

type Log = Extract<FromWorker, { type: 'log' }>

export interface VictimPod {
  readonly name: string
  readonly netns: string
  readonly ips: readonly string[]
  readonly identity: string
  readonly certificate: PodCertificate
}

export type ToVictim =
  | {
      readonly type: 'start'
      readonly pods: readonly VictimPod[]
      /** Pods of the mesh that are served by somebody else. */
      readonly foreign: readonly Pick<VictimPod, 'name' | 'ips' | 'identity'>[]
      readonly options: ProxyOptions
    }
  | { readonly type: 'measure' }
  | { readonly type: 'list' }

export interface Measured {
  readonly heldBytes: number
  readonly rssBytes: number
  readonly descriptors: number
  readonly longestHeldMs: number
}

export type FromVictim =
  | { readonly type: 'started' }
  | ({ readonly type: 'measured' } & Measured)
  | { readonly type: 'closed'; readonly record: ConnectionRecord }
  | { readonly type: 'open'; readonly records: readonly ConnectionRecord[] }
  | { readonly type: 'log'; readonly line: Log }

/** The port of the application, an echo. */
const APP_PORT = 8080
const LONGEST_HELD_MS = 200
const POLL_MS = 50
/** Beyond all that a busy machine may take. */
const PATIENCE_MS = 60_000

export class Victim {
  readonly root: Authority
  readonly client: TestPod
  readonly server: TestPod
  /** Under the attacker's control: calls the others as it likes, and is called as if it were in the mesh. */
  readonly stranger: TestPod
  readonly records: ConnectionRecord[] = []
  readonly logs: Log[] = []
  readonly #t: Test
  readonly #child: ChildProcess
  readonly #watchers = new Set<(message: FromVictim) => void>()

  private constructor(t: Test, root: Authority, pods: TestPod[], child: ChildProcess) {
    this.#t = t
    this.root = root
    ;[this.client, this.server, this.stranger] = pods as [TestPod, TestPod, TestPod]
    this.#child = child
    child.on('message', (message: FromVictim) => {
      if (message.type === 'closed') this.records.push(message.record)
      if (message.type === 'log') this.logs.push(message.line)
      for (const watch of this.#watchers) watch(message)
    })
  }

  /**
   * `patienceMs`: how long anyone may be silent in a connect, a handshake or a preface. Short where a test waits for its
   * end; otherwise longer than an honest peer is without a processor on a full machine.
   */
  static async start(t: Test, { patienceMs = 5000, maxConnections = 10_000 } = {}): Promise<Victim> {
    const root = await createRoot('mesh')
    const pods = makePods(t, ['client', 'server', 'stranger'])
    const child = fork(new URL('data-plane-process.ts', import.meta.url), {
      execArgv: ['--expose-gc'],
      serialization: 'advanced',
    })
    const victim = new Victim(t, root, pods, child)
    t.teardown(async () => {
      child.disconnect()
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    })
    const meshed = pods.slice(0, 2).map(async pod => {
      capture(pod)
      const identity = identityOf(pod.name)
      const certificate = await certificateOf(root, { identity })
      return { name: pod.name, netns: pod.netns, ips: [pod.ip, pod.ip6], identity, certificate }
    })
    const options: ProxyOptions = {
      ...DEFAULT_PROXY,
      maxConnections,
      connectTimeoutMs: patienceMs,
      responseTimeoutMs: 4 * patienceMs, // longer than a handshake and a preface
      handshakeTimeoutMs: patienceMs,
      session: { ...DEFAULT_SESSION, prefaceTimeoutMs: patienceMs },
      clusterId: 'Kubernetes',
    }
    const { name, ip, ip6 } = victim.stranger
    const foreign = [{ name, ips: [ip, ip6], identity: identityOf(name) }]
    victim.#tell({ type: 'start', pods: await Promise.all(meshed), foreign, options })
    await victim.#next(message => (message.type === 'started' ? message : undefined))
    await serve(t, victim.server, APP_PORT, socket => {
      socket.on('data', chunk => socket.write(chunk) || socket.pause())
      socket.on('drain', () => socket.resume())
      socket.on('end', () => socket.end())
    })
    await victim.serves() // from here on the session between the two pods is there
    return victim
  }

  /** The first record that fits, past or future. */
  record(fits: (record: ConnectionRecord) => boolean): Promise<ConnectionRecord> {
    const found = this.records.find(fits)
    if (found) return Promise.resolve(found)
    return this.#next(message =>
      message.type === 'closed' && fits(message.record) ? message.record : undefined,
    )
  }

  /** The first log line that fits, past or future. */
  log(fits: (line: Log) => boolean): Promise<Log> {
    const found = this.logs.find(fits)
    if (found) return Promise.resolve(found)
    return this.#next(message => (message.type === 'log' && fits(message.line) ? message.line : undefined))
  }

  /** What it holds, once its garbage is collected. */
  measure(): Promise<Measured> {
    this.#tell({ type: 'measure' })
    return this.#next(message => (message.type === 'measured' ? message : undefined))
  }

  open(): Promise<readonly ConnectionRecord[]> {
    this.#tell({ type: 'list' })
    return this.#next(message => (message.type === 'open' ? message.records : undefined))
  }

  /**
   * Measures when no connection is open any more and the descriptors are back at the number given, or do not come
   * back: those of connections that have ended go a moment later.
   */
  async settled(descriptors: number): Promise<Measured> {
    const deadline = performance.now() + PATIENCE_MS
    for (;;) {
      const measured = await this.measure()
      const isDone = measured.descriptors <= descriptors && (await this.open()).length === 0
      if (isDone || performance.now() > deadline) return measured
      await sleep(POLL_MS)
    }
  }

  /** A connection from pod to pod through the tunnel; throws when it does not come back as it was sent. */
  async serves(): Promise<void> {
    const socket = await connectFrom(this.#t, this.client, this.server.ip, APP_PORT)
    const sent = randomBytes(1000)
    const got: Buffer[] = []
    socket.on('data', (chunk: Buffer) => got.push(chunk))
    socket.end(sent)
    await once(socket, 'end')
    socket.destroy()
    if (!Buffer.concat(got).equals(sent)) throw new Error('a good connection was not carried as it should be')
  }

  /** After whatever was done to it: alive, serving at once, and never held up. */
  async unharmed(): Promise<void> {
    this.#t.equal(this.#child.exitCode ?? this.#child.signalCode, null, 'the process lives')
    await this.serves()
    this.#t.pass('a good connection is carried')
    const { longestHeldMs } = await this.measure()
    this.#t.ok(
      longestHeldMs < LONGEST_HELD_MS,
      `the event loop was held for ${Math.round(longestHeldMs)} ms at most`,
    )
  }

  /** TLS to the tunnel port of the server pod from the stranger's pod, which has somehow got this certificate. */
  async tls(options: ConnectionOptions = {}): Promise<TLSSocket> {
    const raw = await this.tcp(this.server.ip, PORT.hbone)
    const socket = connectTls({
      socket: raw,
      ALPNProtocols: ['h2'],
      rejectUnauthorized: false,
      checkServerIdentity: () => undefined,
      ...options,
    })
    socket.on('error', () => socket.destroy()) // one that comes after the handshake does not close it
    this.#t.teardown(() => socket.destroy())
    await new Promise<void>((resolve, reject) => {
      socket.once('secureConnect', resolve)
      socket.once('close', () => reject(new Error('closed during the handshake')))
    })
    return socket
  }

  /** As `tls`, with a certificate of the mesh. */
  async member(name = 'stranger'): Promise<TLSSocket> {
    const { key, chain } = await certificateOf(this.root, { identity: identityOf(name) })
    return this.tls({ key, cert: chain })
  }

  /** TCP from a pod, the stranger's if not said otherwise. */
  tcp(host: string, port: number, from: TestPod = this.stranger): Promise<Socket> {
    return connectFrom(this.#t, from, host, port)
  }

  #tell(message: ToVictim): void {
    this.#child.send(message)
  }

  #next<T>(pick: (message: FromVictim) => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const done = () => {
        clearTimeout(timer)
        this.#watchers.delete(watch)
        this.#child.off('exit', exited)
      }
      const watch = (message: FromVictim) => {
        const picked = pick(message)
        if (picked === undefined) return
        done()
        resolve(picked)
      }
      const exited = (code: number | null, signal: string | null) => {
        done()
        reject(new Error(`the data plane's process ended (${code ?? signal})`))
      }
      const timer = setTimeout(() => {
        done()
        reject(new Error('the data plane’s process did not say what was waited for'))
      }, PATIENCE_MS)
      this.#watchers.add(watch)
      this.#child.once('exit', exited)
    })
  }
}

export function identityOf(name: string, trustDomain = 'cluster.local'): string {
  return `spiffe://${trustDomain}/ns/shop/sa/${name}`
}

/** A new key and the certificate for it. */
export async function certificateOf(issuer: Authority, leaf: LeafOptions): Promise<PodCertificate> {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = Uint8Array.from(publicKey.export({ type: 'spki', format: 'der' }))
  const key = privateKey.export({ type: 'pkcs8', format: 'pem' })
  return {
    key,
    chain: await issueLeaf(issuer, spki, leaf),
    roots: issuer.pem,
    notAfterMs: leaf.notAfterMs ?? Date.now() + 86_400_000,
  }
}

/** Resolves when the other side has ended the connection, in whatever way. */
export function closed(socket: Socket): Promise<void> {
  socket.resume()
  socket.once('end', () => socket.destroy())
  return new Promise(resolve => {
    if (socket.closed) resolve()
    else socket.once('close', () => resolve())
  })
}
