/** A real ca-server on loopback, with its world file, its token issuer, and clients as agents have them. */
import { mkdtempSync, rmSync, renameSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { createClient, type Client, type Interceptor, type Transport } from '@connectrpc/connect'
import { createConnectTransport, createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node'
import { exportJWK, generateKeyPair, SignJWT, type CryptoKey } from 'jose'
import { pino } from 'pino'
import type { Test } from 'tap'
import { configFrom } from '../../ca-server/config.ts'
import { startServer, type CaServer } from '../../ca-server/server.ts'
import { stringifyManifest } from '../../lib/kube/manifest.ts'
import type { KubeObject } from '../../lib/kube/objects.ts'
import { ReportService } from '../../lib/proto/gen/culvert/v1/report_pb.js'
import { AggregatedDiscoveryService } from '../../lib/proto/gen/envoy/discovery_pb.js'
import { IstioCertificateService } from '../../lib/proto/gen/istio/ca_pb.js'

const ISSUER = 'https://culvert.test'

export type LogLine = Record<string, unknown> & { msg: string }

/** What a token says, where it differs from a good one of the agent on node-a. */
export interface TokenShape {
  readonly node?: string | undefined
  readonly namespace?: string
  readonly serviceAccount?: string
  readonly issuer?: string
  readonly audience?: string
  readonly subject?: string
  /** Seconds from now. */
  readonly expiresIn?: number
  readonly notBeforeIn?: number
  readonly claims?: Record<string, unknown>
  readonly kid?: string
}

export class TokenIssuer {
  readonly #key: CryptoKey
  readonly kid: string
  readonly jwks: string

  private constructor(key: CryptoKey, kid: string, jwks: string) {
    this.#key = key
    this.kid = kid
    this.jwks = jwks
  }

  static async create(kid = 'test'): Promise<TokenIssuer> {
    const { publicKey, privateKey } = await generateKeyPair('ES256')
    const jwk = { ...(await exportJWK(publicKey)), kid, alg: 'ES256', use: 'sig' }
    return new TokenIssuer(privateKey, kid, JSON.stringify({ keys: [jwk] }))
  }

  token(shape: TokenShape = {}): Promise<string> {
    const { namespace = 'culvert-system', serviceAccount = 'culvert-agent' } = shape
    const node = 'node' in shape ? shape.node : 'node-a'
    const now = Math.floor(Date.now() / 1000)
    const kubernetes = {
      namespace,
      ...(node !== undefined && { node: { name: node, uid: `uid-${node}` } }),
      pod: { name: `culvert-agent-${node}`, uid: `uid-agent-${node}` },
      serviceaccount: { name: serviceAccount, uid: 'uid-sa' },
    }
    return new SignJWT({ 'kubernetes.io': kubernetes, ...shape.claims })
      .setProtectedHeader({ alg: 'ES256', kid: shape.kid ?? this.kid })
      .setIssuer(shape.issuer ?? ISSUER)
      .setAudience([shape.audience ?? 'culvert-ca'])
      .setSubject(shape.subject ?? `system:serviceaccount:${namespace}:${serviceAccount}`)
      .setNotBefore(now + (shape.notBeforeIn ?? 0))
      .setExpirationTime(now + (shape.expiresIn ?? 600))
      .sign(this.#key)
  }
}

export interface Clients {
  readonly certificates: Client<typeof IstioCertificateService>
  readonly discovery: Client<typeof AggregatedDiscoveryService>
  readonly reports: Client<typeof ReportService>
}

export interface TestCaOptions {
  readonly world?: readonly KubeObject[]
  readonly env?: Readonly<Record<string, string>>
  /** Where the server keeps its things; a fresh directory when not given. */
  readonly directory?: string
}

export class TestCa {
  readonly directory: string
  readonly issuer: TokenIssuer
  readonly lines: LogLine[] = []
  readonly #env: Readonly<Record<string, string>>
  readonly #watchers = new Set<() => void>()
  #server: CaServer | undefined

  private constructor(directory: string, issuer: TokenIssuer, env: Readonly<Record<string, string>>) {
    this.directory = directory
    this.issuer = issuer
    this.#env = env
  }

  static async start(t: Test, options: TestCaOptions = {}): Promise<TestCa> {
    const directory = options.directory ?? temporaryDirectory(t)
    const ca = new TestCa(directory, await TokenIssuer.create(), options.env ?? {})
    writeFileSync(ca.file('jwks.json'), ca.issuer.jwks)
    if (options.world) ca.setWorld(options.world)
    t.teardown(() => ca.stop())
    await ca.restart()
    return ca
  }

  /** Starts it again in the same directory; stops it before, if it runs. */
  async restart(): Promise<void> {
    await this.stop()
    const config = configFrom({
      LISTEN_PORT: '0',
      METRICS_PORT: '0',
      LISTEN_ADDRESS: '127.0.0.1',
      DATA_DIR: this.directory,
      WORLD_FILE: this.file('cluster.yaml'),
      JWKS_FILE: this.file('jwks.json'),
      TOKEN_ISSUER: ISSUER,
      ROOT_OUT: this.file('root.pem'),
      LOG_LEVEL: 'trace',
      ...this.#env,
    })
    this.#server = await startServer(config, pino({ level: config.logLevel, base: {} }, this.#collector()))
  }

  async stop(): Promise<void> {
    await this.#server?.stop()
    this.#server = undefined
  }

  get port(): number {
    return this.#server!.port
  }

  get metricsPort(): number {
    return this.#server!.metricsPort
  }

  get rootPem(): string {
    return readFileSync(this.file('root.pem'), 'utf8')
  }

  file(name: string): string {
    return join(this.directory, name)
  }

  /** Replaces the world file atomically. */
  setWorld(objects: readonly KubeObject[]): void {
    this.replace('cluster.yaml', stringifyManifest(objects))
  }

  replace(name: string, text: string): void {
    writeFileSync(this.file(`${name}.new`), text)
    renameSync(this.file(`${name}.new`), this.file(name))
  }

  /** Clients that carry this token. */
  clients(t: Test, token: string | (() => Promise<string>)): Clients {
    return clientsOver(this.transport(t, token))
  }

  /** Over gRPC, or over Connect with JSON as curl would. */
  transport(t: Test, token: string | (() => Promise<string>), kind: 'grpc' | 'json' = 'grpc'): Transport {
    const baseUrl = `https://127.0.0.1:${this.port}`
    const authorize: Interceptor = next => async request => {
      request.header.set('authorization', `Bearer ${typeof token === 'string' ? token : await token()}`)
      return await next(request)
    }
    const tls = { ca: this.rootPem }
    const common = { baseUrl, interceptors: [authorize] }
    if (kind === 'json')
      return createConnectTransport({
        ...common,
        httpVersion: '1.1',
        useBinaryFormat: false,
        nodeOptions: tls,
      })
    const sessionManager = new Http2SessionManager(baseUrl, undefined, tls)
    t.teardown(() => sessionManager.abort())
    return createGrpcTransport({ ...common, sessionManager })
  }

  /** The first log line, past or to come, that holds all these fields. */
  line(fields: Record<string, unknown>): Promise<LogLine> {
    const found = (): LogLine | undefined =>
      this.lines.find(line => Object.entries(fields).every(([name, value]) => line[name] === value))
    return new Promise(resolve => {
      const look = (): void => {
        const line = found()
        if (!line) return
        this.#watchers.delete(look)
        resolve(line)
      }
      this.#watchers.add(look)
      look()
    })
  }

  async metrics(): Promise<string> {
    return await (await fetch(`http://127.0.0.1:${this.metricsPort}/metrics`)).text()
  }

  #collector(): Writable {
    return new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        for (const text of chunk.toString().split('\n').filter(Boolean))
          this.lines.push(JSON.parse(text) as LogLine)
        for (const watcher of this.#watchers) watcher()
        done()
      },
    })
  }
}

export function clientsOver(transport: Transport): Clients {
  return {
    certificates: createClient(IstioCertificateService, transport),
    discovery: createClient(AggregatedDiscoveryService, transport),
    reports: createClient(ReportService, transport),
  }
}

export function temporaryDirectory(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-ca-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}
