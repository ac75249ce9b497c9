/** Certificates, and connections with the agent's own TLS at one end and Node's or another of ours at the other. */
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { Socket } from 'node:net'
import {
  TLSSocket,
  connect,
  createSecureContext,
  type ConnectionOptions,
  type TLSSocketOptions,
} from 'node:tls'
import type { Test } from 'tap'
import type { TransportSink } from '../../agent/hbone/transport.ts'
import { TlsSocket } from '../../agent/io/tls-socket.ts'
import { TlsContext, type TlsMaterial } from '../../agent/sys/tls-context.ts'
import { fdPair } from './io.ts'
import { createRoot, issueLeaf, type Authority, type LeafOptions } from './test-pki.ts'

export const root: Authority = await createRoot('Root of the mesh')

/** Key and certificate of a workload. */
export async function material(
  name: string,
  options: Partial<LeafOptions> = {},
  issuer: Authority = root,
): Promise<TlsMaterial> {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))
  const identity = `spiffe://cluster.local/ns/test/sa/${name}`
  return {
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
    chain: await issueLeaf(issuer, spki, { identity, ...options }),
    roots: root.pem,
  }
}

export const ours = new TlsContext(await material('ours'))
export const theirs: TlsMaterial = await material('theirs')

/** What Node asks for to speak as the mesh does. */
export function nodeOptions({ key, chain, roots }: TlsMaterial): ConnectionOptions & TLSSocketOptions {
  return {
    secureContext: createSecureContext({ key, cert: chain, ca: roots, minVersion: 'TLSv1.3' }),
    requestCert: true,
    rejectUnauthorized: true,
    checkServerIdentity: () => undefined,
    ALPNProtocols: ['h2'],
    allowHalfOpen: true,
  } as ConnectionOptions & TLSSocketOptions
}

/** What a transport tells, kept. */
export class Sink implements TransportSink {
  readonly #pieces: Buffer[] = []
  bytes = 0
  drains = 0
  /** Each time that it was told: there must be one at most. */
  readonly closings: (Error | undefined)[] = []
  readonly #watchers = new Set<() => void>()
  onReceived: ((bytes: Buffer, length: number) => void) | undefined

  get all(): Buffer {
    return Buffer.concat(this.#pieces)
  }

  get text(): string {
    return this.all.toString('latin1')
  }

  received(bytes: Buffer, length: number): void {
    this.bytes += length
    this.#pieces.push(Buffer.from(bytes.subarray(0, length)))
    this.onReceived?.(bytes, length)
    this.#wake()
  }

  drained(): void {
    this.drains++
    this.#wake()
  }

  closed(error: Error | undefined): void {
    this.closings.push(error)
    this.#wake()
  }

  async until(holds: () => boolean): Promise<void> {
    if (holds()) return
    await new Promise<void>(resolve => {
      const watch = () => {
        if (!holds()) return
        this.#watchers.delete(watch)
        resolve()
      }
      this.#watchers.add(watch)
    })
  }

  #wake(): void {
    for (const watch of this.#watchers) watch()
  }
}

export type Side = 'client' | 'server'

/** Ours as `side`, Node's as the other; the handshake is under way. */
export async function withNode(
  t: Test,
  side: Side,
  options: ConnectionOptions & TLSSocketOptions = nodeOptions(theirs),
  context = ours,
): Promise<{ own: TlsSocket; node: TLSSocket; raw: Socket }> {
  const [near, far] = await fdPair()
  const raw = new Socket({ fd: far, allowHalfOpen: true })
  raw.on('error', () => undefined)
  const node =
    side === 'server'
      ? connect({ ...options, socket: raw })
      : new TLSSocket(raw, { ...options, isServer: true })
  node.on('error', () => undefined)
  const own = new TlsSocket(near, context, side)
  t.teardown(() => {
    own.destroy()
    node.destroy()
    raw.destroy()
  })
  return { own, node, raw }
}

/** The same, once both have what they asked for, and ours delivers to a sink. */
export async function securedWithNode(t: Test, side: Side) {
  const ends = await withNode(t, side)
  const both = [ends.own.secured, once(ends.node, side === 'server' ? 'secureConnect' : 'secure')]
  await Promise.all(both)
  const sink = new Sink()
  ends.own.start(sink)
  return { ...ends, sink }
}

/** Both ends ours. */
export async function securedPair(t: Test, client = ours, server = ours) {
  const [near, far] = await fdPair()
  const ends = [new TlsSocket(near, client, 'client'), new TlsSocket(far, server, 'server')] as const
  for (const end of ends) t.teardown(() => end.destroy())
  await Promise.all(ends.map(end => end.secured))
  const sinks = [new Sink(), new Sink()] as const
  ends[0].start(sinks[0])
  ends[1].start(sinks[1])
  return { client: ends[0], server: ends[1], atClient: sinks[0], atServer: sinks[1] }
}
