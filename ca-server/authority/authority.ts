/**
 * The certificate authority: it holds the issuer in force, signs with it, and takes over a new one when the
 * files it came from change. A change that cannot be used is logged and the old issuer stays.
 */
import { generateKeyPairSync, X509Certificate as NodeCertificate } from 'node:crypto'
import { PublicKey } from './x509.ts'
import { errorText } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import { FileWatch } from '../file-watch.ts'
import type { EngineName } from './engine-name.ts'
import { engineOf, type Engine } from './engine.ts'
import { intermediateFrom } from './intermediate.ts'
import type { Issuer } from './issuer.ts'
import { signServing, signWorkload, type IssuedCertificate, type LeafRequest } from './leaf.ts'
import { openOwnRoot } from './own-root.ts'
import { FileRootStore, type RootStore } from './root-store.ts'

export type AuthoritySource =
  | { readonly kind: 'own-root'; readonly directory: string }
  | { readonly kind: 'kept-root'; readonly store: RootStore }
  | {
      readonly kind: 'intermediate'
      readonly keyFile: string
      readonly chainFile: string
      readonly rootFile: string
    }

export interface AuthorityOptions {
  readonly trustDomain: string
  readonly source: AuthoritySource
  readonly engine: EngineName
  readonly log: Logger
}

/** The server's own certificate with its key, as TLS options want them. */
export interface ServingCertificate {
  readonly key: string
  /** PEM, leaf first, without roots. */
  readonly chain: string
  readonly notAfter: Date
}

export class Authority {
  readonly #options: AuthorityOptions
  readonly #engine: Engine
  readonly #watch: FileWatch | undefined
  readonly #listeners = new Set<() => void>()
  #issuer: Issuer | undefined

  private constructor(options: AuthorityOptions) {
    this.#options = options
    this.#engine = engineOf(options.engine)
    const { source } = options
    if (source.kind === 'intermediate')
      this.#watch = new FileWatch({
        paths: [source.keyFile, source.chainFile, source.rootFile],
        load: texts => this.#useIntermediate(texts),
        failed: err =>
          options.log.error({ err: errorText(err) }, 'new CA files not usable, the old ones stay'),
      })
  }

  /** Opens or makes what signs. Throws `PKI` when there is something and it cannot be used. */
  static async open(options: AuthorityOptions): Promise<Authority> {
    const authority = new Authority(options)
    const { source } = options
    if (source.kind !== 'intermediate') {
      const { issuer, created } = await openOwnRoot({
        store: source.kind === 'own-root' ? new FileRootStore(source.directory) : source.store,
        trustDomain: options.trustDomain,
        engine: authority.#engine,
      })
      authority.#issuer = issuer
      options.log.info(describe(issuer), created ? 'root made' : 'root opened')
    } else {
      await authority.#watch!.loadNow()
    }
    return authority
  }

  /** Follows the files, if there are any, until the signal aborts. */
  follow(signal: AbortSignal): void {
    this.#watch?.follow(signal)
  }

  get engine(): Engine {
    return this.#engine
  }

  /** PEM, one certificate each. */
  get roots(): readonly string[] {
    return this.#current.roots
  }

  /** When the signing certificate and the first root to end do. */
  get ends(): { readonly signer: Date; readonly root: Date } {
    const roots = this.roots.map(pem => new NodeCertificate(pem).validToDate.getTime())
    return { signer: this.#current.certificate.notAfter, root: new Date(Math.min(...roots)) }
  }

  /** Calls `changed` after another issuer or other roots have come into force. */
  onChange(changed: () => void): void {
    this.#listeners.add(changed)
  }

  /** A certificate for a workload. The identity must have been decided on before. Throws `PKI`. */
  issue(identity: string, request: LeafRequest): Promise<IssuedCertificate> {
    return signWorkload(this.#current, identity, request, this.#engine)
  }

  /** A certificate and a fresh P-256 key for the server itself. Throws `PKI`. */
  async issueServing(
    names: { readonly dns: readonly string[]; readonly ips: readonly string[] },
    ttlMs: number,
  ): Promise<ServingCertificate> {
    const pair = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
    const publicKey = new PublicKey(pair.publicKey.export({ type: 'spki', format: 'der' }))
    const issued = await signServing(this.#current, names, { publicKey, ttlMs }, this.#engine)
    return {
      key: pair.privateKey.export({ type: 'pkcs8', format: 'pem' }),
      chain: issued.chain.slice(0, -1).join(''),
      notAfter: issued.notAfter,
    }
  }

  get #current(): Issuer {
    return this.#issuer! // set by open(), the only way to an instance
  }

  async #useIntermediate(texts: readonly string[]): Promise<void> {
    const [key, chain, roots] = texts as [string, string, string]
    const isFirst = this.#issuer === undefined
    this.#issuer = await intermediateFrom({ key, chain, roots }, this.#engine)
    this.#options.log.info(describe(this.#issuer), isFirst ? 'intermediate opened' : 'intermediate replaced')
    for (const listener of this.#listeners) listener()
  }
}

function describe(issuer: Issuer): Record<string, unknown> {
  return {
    signer: issuer.certificate.subject,
    not_after: issuer.certificate.notAfter.toISOString(),
    roots: issuer.roots.length,
  }
}
