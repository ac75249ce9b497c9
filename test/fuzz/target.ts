/**
 * What is fired at: a live data plane in a process of its own that serves two pods of the mesh, an application in one
 * of them, and a third pod that is in the attacker's hands. Every process is started here and ended here.
 */
import { fork, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { createSecureContext, type SecureContext } from 'node:tls'
import { DEFAULT_SESSION } from '../../agent/hbone/limits.ts'
import { DEFAULT_PROXY, type ProxyOptions } from '../../agent/proxy/pod-context.ts'
import { inNetns } from '../../agent/sys/netns.ts'
import { connectSocket } from '../../agent/sys/socket.ts'
import type { ConnectionRecord, PodCertificate } from '../../agent/worker/messages.ts'
import { programArgv } from '../../lab/supervisor/context.ts'
import { CulvertError } from '../../lib/errors.ts'
import { capture } from '../helpers/mesh-pair.ts'
import { makePods, type TestPod } from '../helpers/pods.ts'
import { createRoot } from '../helpers/test-pki.ts'
import {
  certificateOf,
  identityOf,
  type FromVictim,
  type Measured,
  type ToVictim,
} from '../helpers/victim.ts'
import type { Authorities } from './captures.ts'
import type { Scope } from './scope.ts'
import type { LiveObjects } from './target-process.ts'

/** How long anyone may be silent in a connect, a handshake or a preface: short, so that silence costs little. */
const PATIENCE_MS = 500
const START_TIMEOUT_MS = 20_000
const POLL_MS = 50
const SETTLE_MS = 15_000
/** Of what the process wrote to its standard error, the end is kept. */
const MAX_STDERR = 16_384

export type Facts = Measured & LiveObjects & { readonly open: readonly LeftOpen[] }

/** A connection that is open: in words, and the port of whoever called. */
export interface LeftOpen {
  readonly text: string
  readonly port: number
}

type Reply = FromVictim | { readonly type: 'objects'; readonly objects: LiveObjects }

export interface TargetEvents {
  /** A line of the data plane's log. */
  log(line: Extract<FromVictim, { type: 'log' }>['line']): void
  closed(record: ConnectionRecord): void
  /** The process has ended by itself. */
  died(how: string): void
}

export class Target {
  readonly client: TestPod
  readonly server: TestPod
  readonly stranger: TestPod
  readonly authorities: Authorities
  readonly certificate: PodCertificate
  /** The attacker's, a member of the mesh, as client or server. */
  readonly context: SecureContext
  events: TargetEvents | undefined
  readonly #child: ChildProcess
  readonly #watchers = new Set<(message: Reply) => void>()
  #stderr = ''
  #ended: string | undefined
  #isStopping = false

  private constructor(pods: readonly TestPod[], certificate: PodCertificate, child: ChildProcess) {
    ;[this.client, this.server, this.stranger] = pods as [TestPod, TestPod, TestPod]
    const at = (port: number) => `${this.server.ip}:${port}`
    this.authorities = { echo: at(7000), slow: at(7001), sink: at(7002), reset: at(7003) }
    this.certificate = certificate
    const { key, chain, roots } = certificate
    this.context = createSecureContext({ key, cert: chain, ca: roots })
    this.#child = child
    child.on('message', (message: Reply) => {
      if (message.type === 'closed') this.events?.closed(message.record)
      if (message.type === 'log') this.events?.log(message.line)
      for (const watch of this.#watchers) watch(message)
    })
    child.on('error', () => undefined) // 'exit' comes too, or the start fails
    child.stderr!.on('error', () => undefined)
    child.stderr!.on(
      'data',
      (chunk: Buffer) => (this.#stderr = (this.#stderr + chunk.toString()).slice(-MAX_STDERR)),
    )
    child.once('exit', (code, signal) => {
      this.#ended = signal === null ? `with code ${code}` : `by ${signal}`
      if (!this.#isStopping) this.events?.died(this.#ended)
    })
  }

  static async start(scope: Scope): Promise<Target> {
    const root = await createRoot('mesh')
    const pods = makePods(scope, ['client', 'server', 'stranger'])
    const [client, server, stranger] = pods as [TestPod, TestPod, TestPod]
    const child = fork(new URL('target-process.ts', import.meta.url), {
      execArgv: ['--expose-gc', '--disable-warning=ExperimentalWarning'],
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      detached: true, // Ctrl-C is for whoever started all this, who then ends it in order
    })
    const target = new Target(pods, await certificateOf(root, { identity: identityOf('stranger') }), child)
    scope.teardown(() => target.#stop())
    const meshed = [client, server].map(async ({ name, netns, ip, ip6 }) => {
      const identity = identityOf(name)
      return { name, netns, ips: [ip, ip6], identity, certificate: await certificateOf(root, { identity }) }
    })
    for (const pod of [client, server]) capture(pod)
    const foreign = [
      { name: stranger.name, ips: [stranger.ip, stranger.ip6], identity: identityOf(stranger.name) },
    ]
    target.#tell({ type: 'start', pods: await Promise.all(meshed), foreign, options: OPTIONS })
    await target.#next(message => (message.type === 'started' ? message : undefined))
    await startProgram(scope, server, [...programArgv('lab/app/main.ts')], line =>
      line.startsWith('listening'),
    )
    return target
  }

  /** How the process ended; undefined while it lives. */
  get ended(): string | undefined {
    return this.#ended
  }

  /** What it has written to its standard error: nothing, if all is well. */
  get stderr(): string {
    return this.#stderr
  }

  /** What it holds, once its garbage is collected. Rejects when the process ends. */
  async facts(): Promise<Facts> {
    // The question itself holds the loop up: that is not the attacker's doing.
    const { longestHeldMs } = await this.measured()
    this.#ask({ type: 'objects' })
    const objects = await this.#next(message => (message.type === 'objects' ? message.objects : undefined))
    this.#ask({ type: 'list' })
    const open = await this.#next(message => (message.type === 'open' ? message.records : undefined))
    return {
      ...(await this.measured()),
      longestHeldMs,
      ...objects,
      open: open.map(one => ({ text: inWords(one), port: one.source.port })),
    }
  }

  /** Its memory alone: the rest takes longer to ask for than an honest connection should wait. */
  measured(): Promise<Measured> {
    this.#ask({ type: 'measure' })
    return this.#next(message => (message.type === 'measured' ? message : undefined))
  }

  /** The facts once they are as asked for, or what they are when they do not become so. */
  async settled(isSo: (facts: Facts) => boolean): Promise<Facts> {
    for (const deadline = performance.now() + SETTLE_MS; ; await sleep(POLL_MS)) {
      const facts = await this.facts()
      if (isSo(facts) || performance.now() > deadline) return facts
    }
  }

  /** TCP from a pod. Rejects with the errno; who gets the socket destroys it. */
  async connect(from: TestPod, host: string, port: number): Promise<Socket> {
    const fd = inNetns(from.fd, () => connectSocket({ family: host.includes(':') ? 6 : 4, mark: 0 }))
    const socket = new Socket({ fd, allowHalfOpen: true, manualStart: true } as never)
    socket.on('error', () => undefined)
    socket.setNoDelay()
    socket.connect({ host, port })
    await once(socket, 'connect')
    return socket
  }

  #tell(message: ToVictim): void {
    this.#ask(message)
  }

  #ask(message: object): void {
    if (this.#child.connected) this.#child.send(message, () => undefined) // its end is told to who waits
  }

  #next<T>(pick: (message: Reply) => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const done = () => {
        this.#watchers.delete(watch)
        this.#child.off('exit', exited)
      }
      const watch = (message: Reply) => {
        const picked = pick(message)
        if (picked === undefined) return
        done()
        resolve(picked)
      }
      const exited = () => {
        done()
        reject(
          new CulvertError('CLOSED', `the data plane ended ${this.#ended ?? ''}: ${this.#stderr.trim()}`),
        )
      }
      if (this.#ended !== undefined) return exited()
      this.#watchers.add(watch)
      this.#child.once('exit', exited)
    })
  }

  async #stop(): Promise<void> {
    this.#isStopping = true
    await endProcess(this.#child, () => this.#child.disconnect())
  }
}

function inWords({
  direction,
  source,
  destination,
  reason,
  bytesSent,
  bytesReceived,
  openedAtMs,
}: ConnectionRecord): string {
  const ends = `${source.ip}:${source.port} to ${destination.ip}:${destination.port}`
  const age = Date.now() - openedAtMs
  return `${direction} ${ends} (${reason}, ${bytesSent} bytes there, ${bytesReceived} back, ${age} ms old)`
}

const OPTIONS: ProxyOptions = {
  ...DEFAULT_PROXY,
  connectTimeoutMs: PATIENCE_MS,
  responseTimeoutMs: 2 * PATIENCE_MS,
  handshakeTimeoutMs: PATIENCE_MS,
  halfClosedMs: 4 * PATIENCE_MS,
  session: { ...DEFAULT_SESSION, prefaceTimeoutMs: PATIENCE_MS },
  clusterId: 'Kubernetes',
}

/** Starts a program in a pod, ended with the scope. Resolves once a line of its output fits. */
export async function startProgram(
  scope: Scope,
  pod: TestPod,
  argv: readonly string[],
  isReady: (line: string) => boolean,
): Promise<ChildProcess> {
  const child = spawn('ip', ['netns', 'exec', pod.netns, ...argv], {
    stdio: ['pipe', 'pipe', 'inherit'],
    detached: true,
  })
  child.stdin.on('error', () => undefined)
  scope.teardown(() => endProcess(child, () => child.kill('SIGKILL')))
  await new Promise<void>((resolve, reject) => {
    const late = setTimeout(
      () => reject(new CulvertError('TIMEOUT', `${argv.at(-1)} does not start`)),
      START_TIMEOUT_MS,
    )
    child.once('error', reject)
    child.once('exit', code =>
      reject(new CulvertError('TOOL', `${argv.join(' ')} ended at its start (${code})`)),
    )
    createInterface({ input: child.stdout }).on('line', line => {
      if (!isReady(line)) return
      clearTimeout(late)
      resolve()
    })
  })
  return child
}

async function endProcess(child: ChildProcess, end: () => void): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
  const ended = once(child, 'exit')
  end()
  await ended
}

/** A client hello as Node makes it, to be damaged. */
export async function clientHello(
  options: { ALPNProtocols?: string[]; servername?: string } = {},
): Promise<Buffer> {
  const { connect } = await import('node:tls')
  const { duplexPair } = await import('node:stream')
  const [near, far] = duplexPair()
  const socket = connect({ socket: near, ...options })
  socket.on('error', () => undefined)
  const [hello] = (await once(far, 'data')) as [Buffer]
  socket.destroy()
  near.destroy()
  far.destroy()
  return hello
}
