/**
 * The own root in a Secret of type `kubernetes.io/tls`. It is created whole or not at all, so that of several replicas
 * the first one's stands. When there is none, but the roots that agents trust are published already, somebody has
 * lost it: that is no first start. Waits for an API server that cannot be reached.
 */
import { Backoff } from '../../lib/backoff.ts'
import { CulvertError } from '../../lib/errors.ts'
import { textAt, valueAt } from '../../lib/json.ts'
import type { Logger } from '../../lib/log.ts'
import type { RootPem, RootStore } from '../authority/root-store.ts'
import type { ApiClient } from './api-client.ts'
import { LABELS, ROOT_KEY } from './names.ts'
import { parentOf, path } from './paths.ts'
import { hasStatus, persist } from './persist.ts'

export interface SecretRootStoreOptions {
  readonly api: ApiClient
  readonly namespace: string
  readonly secret: string
  /** Where roots are published. */
  readonly configMap: string
  readonly log: Logger
  readonly signal: AbortSignal
}

const LIMITS = { silenceMs: 10_000, maxBytes: 2 * 1024 * 1024 }

export class SecretRootStore implements RootStore {
  readonly names: RootStore['names']
  readonly #options: SecretRootStoreOptions
  readonly #path: string

  constructor(options: SecretRootStoreOptions) {
    this.#options = options
    const { namespace, secret } = options
    this.#path = path.secret(namespace, secret)
    this.names = {
      key: `tls.key of Secret ${namespace}/${secret}`,
      certificate: `tls.crt of Secret ${namespace}/${secret}`,
    }
  }

  async read(): Promise<Partial<RootPem>> {
    const kept = await this.#get(this.#path)
    if (kept !== undefined) return rootOf(kept)
    const { namespace, secret, configMap } = this.#options
    const roots = await this.#get(path.configMap(namespace, configMap))
    if (textAt(valueAt(roots, 'data'), ROOT_KEY) === undefined) return {}
    // Another replica may have made the root and published it between the two questions.
    const now = await this.#get(this.#path)
    if (now !== undefined) return rootOf(now)
    throw new CulvertError(
      'PKI',
      `roots are published in ConfigMap ${namespace}/${configMap}, but the Secret ${namespace}/${secret} that signs for them is gone`,
      {
        hint: 'restore the Secret; or, to start over with a new root that nobody trusts yet, remove the ConfigMap',
      },
    )
  }

  async keep({ key, certificate }: RootPem): Promise<Partial<RootPem>> {
    const { api, namespace, secret, signal } = this.#options
    const object = {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: secret, namespace, labels: LABELS },
      type: 'kubernetes.io/tls',
      data: { 'tls.key': base64(key), 'tls.crt': base64(certificate) },
    }
    // One that was sent twice meets itself.
    const isOurs = await this.#persist(`create Secret ${namespace}/${secret}`, () =>
      api.change('POST', parentOf(this.#path), object, LIMITS, signal).then(
        () => true,
        (err: unknown) => {
          if (hasStatus(err, 409)) return false
          throw err
        },
      ),
    )
    return isOurs ? { key, certificate } : await this.read()
  }

  complete(): Promise<void> {
    return Promise.reject(new CulvertError('PKI', `there is a key, but no ${this.names.certificate}`))
  }

  async #get(objectPath: string): Promise<unknown> {
    const { api, signal } = this.#options
    return await this.#persist(`read ${objectPath}`, () =>
      api.get(objectPath, {}, LIMITS, signal).catch((err: unknown) => {
        if (hasStatus(err, 404)) return undefined
        throw err
      }),
    )
  }

  #persist<T>(what: string, work: () => Promise<T>): Promise<T> {
    const { log, signal } = this.#options
    return persist(work, { what, backoff: new Backoff({ firstMs: 200, maxMs: 10_000 }), log, signal })
  }
}

function rootOf(secret: unknown): Partial<RootPem> {
  const text = (name: string): string | undefined => {
    const found = textAt(valueAt(secret, 'data'), name)
    return found === undefined ? undefined : Buffer.from(found, 'base64').toString()
  }
  const key = text('tls.key')
  const certificate = text('tls.crt')
  return { ...(key !== undefined && { key }), ...(certificate !== undefined && { certificate }) }
}

function base64(text: string): string {
  return Buffer.from(text).toString('base64')
}
