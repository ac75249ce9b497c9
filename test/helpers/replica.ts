/** A replica of the ca-server as a process of its own, which finds its cluster as a pod does. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import type { Interceptor } from '@connectrpc/connect'
import { createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node'
import { COMPILE_CACHE_DIR } from '../../lib/compile-cache.ts'
import { clientsOver, type Clients } from './ca-server.ts'
import { ProcessLog } from './process-log.ts'

const MAIN = fileURLToPath(new URL('../../ca-server/main.ts', import.meta.url))

export interface ReplicaOptions {
  readonly name: string
  readonly apiServer: URL
  /** With `token` and `ca.crt`, as the kubelet mounts them. */
  readonly accountDirectory: string
  readonly env?: Readonly<Record<string, string>>
}

export class Replica {
  readonly name: string
  readonly log: ProcessLog
  readonly process: ChildProcess
  readonly #directory: string

  constructor(t: Pick<Test, 'teardown'>, { name, apiServer, accountDirectory, env }: ReplicaOptions) {
    this.name = name
    this.#directory = mkdtempSync(join(tmpdir(), 'culvert-replica-'))
    this.process = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', MAIN], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        PATH: process.env['PATH'],
        NODE_COMPILE_CACHE: COMPILE_CACHE_DIR,
        KUBERNETES_SERVICE_HOST: apiServer.hostname,
        KUBERNETES_SERVICE_PORT: apiServer.port,
        SERVICE_ACCOUNT_DIR: accountDirectory,
        POD_NAME: name,
        LISTEN_PORT: '0',
        METRICS_PORT: '0',
        LISTEN_ADDRESS: '127.0.0.1',
        LOG_LEVEL: 'debug',
        PORT_FILE: this.#file('ports.json'),
        ROOT_OUT: this.#file('root.pem'),
        ...env,
      },
    })
    this.log = new ProcessLog(name, this.process)
    t.teardown(async () => {
      await this.kill('SIGTERM')
      rmSync(this.#directory, { recursive: true, force: true })
    })
  }

  /** Ends when its ports are open. */
  async started(): Promise<void> {
    await this.log.line('that it serves', line => line['msg'] === 'ca-server ready')
  }

  /** Ends with the process. */
  async kill(signal: NodeJS.Signals): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return
    const ended = once(this.process, 'exit')
    this.process.kill(signal)
    await ended
  }

  get roots(): string {
    return readFileSync(this.#file('root.pem'), 'utf8')
  }

  /** Of the process, bytes, and of that what is its own (anonymous). */
  memory(): { rss: number; own: number } {
    const status = readFileSync(`/proc/${this.process.pid}/status`, 'utf8')
    const field = (name: string): number =>
      Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0) * 1024
    return { rss: field('VmRSS'), own: field('RssAnon') }
  }

  async get(path: string): Promise<{ status: number; text: string }> {
    const { metricsPort } = this.#ports
    const response = await fetch(`http://127.0.0.1:${metricsPort}${path}`)
    return { status: response.status, text: await response.text() }
  }

  /** The number of a metric without labels, or with these. */
  async metric(name: string): Promise<number> {
    const { text } = await this.get('/metrics')
    const line = text.split('\n').find(line => line.startsWith(`${name} `))
    return Number(line?.split(' ')[1])
  }

  /** Clients that carry this token. */
  clients(t: Pick<Test, 'teardown'>, token: string | (() => string)): Clients {
    const baseUrl = `https://127.0.0.1:${this.#ports.port}`
    const authorize: Interceptor = next => async request => {
      request.header.set('authorization', `Bearer ${typeof token === 'string' ? token : token()}`)
      return await next(request)
    }
    const sessionManager = new Http2SessionManager(baseUrl, undefined, { ca: this.roots })
    t.teardown(() => sessionManager.abort())
    return clientsOver(createGrpcTransport({ baseUrl, interceptors: [authorize], sessionManager }))
  }

  get #ports(): { port: number; metricsPort: number } {
    const file = this.#file('ports.json')
    if (!existsSync(file)) throw new Error(`${this.name} does not serve yet`)
    return JSON.parse(readFileSync(file, 'utf8')) as { port: number; metricsPort: number }
  }

  #file(name: string): string {
    return join(this.#directory, name)
  }
}
