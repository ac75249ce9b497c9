/**
 * What signs: a CA certificate with its key, the certificates between it and the roots, and the roots. Made by
 * `own-root.ts` or `intermediate.ts`; read by `leaf.ts`.
 */
import type { KeyObject } from 'node:crypto'
import { AuthorityKeyIdentifierExtension, type X509Certificate } from './x509.ts'
import { CulvertError } from '../../lib/errors.ts'
import { oid, sequence } from '../../lib/pki/der.ts'
import { ECDSA_WITH_SHA256 } from '../../lib/pki/request.ts'
import type { Engine } from './engine.ts'

export interface Issuer {
  readonly certificate: X509Certificate
  readonly key: CryptoKey
  /** Signature algorithm for WebCrypto. */
  readonly algorithm: SigningAlgorithm
  /** The same as certificates name it, DER. */
  readonly algorithmIdentifier: Uint8Array
  /** PEM, from the signing certificate upwards, roots left out; empty when a root signs. */
  readonly chain: readonly string[]
  /** PEM, one certificate each. */
  readonly roots: readonly string[]
  readonly keyIdentifier: AuthorityKeyIdentifierExtension
}

export interface SigningAlgorithm {
  readonly name: string
  readonly hash: string
  readonly namedCurve?: string
}

/** With what RFC 5758 §3.2 and RFC 4055 §5 call each in a certificate. */
type Signing = readonly [algorithm: SigningAlgorithm, identifier: Uint8Array]

const CURVES: Readonly<Record<string, Signing>> = {
  prime256v1: [{ name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }, ECDSA_WITH_SHA256],
  secp384r1: [{ name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' }, sequence(oid('1.2.840.10045.4.3.3'))],
  secp521r1: [{ name: 'ECDSA', namedCurve: 'P-521', hash: 'SHA-512' }, sequence(oid('1.2.840.10045.4.3.4'))],
}

const DER_NULL = Buffer.of(5, 0)
const RSA: Signing = [
  { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' },
  sequence(oid('1.2.840.113549.1.1.11'), DER_NULL),
]

/** An issuer from its parts; the key is imported into the engine, not extractable. Throws `PKI`. */
export async function issuerFrom(
  certificate: X509Certificate,
  key: KeyObject,
  chain: readonly string[],
  roots: readonly string[],
  engine: Engine,
): Promise<Issuer> {
  const [algorithm, algorithmIdentifier] = signingAlgorithm(key)
  const imported = await engine.subtle.importKey(
    'pkcs8',
    key.export({ type: 'pkcs8', format: 'der' }),
    algorithm,
    false,
    ['sign'],
  )
  const keyIdentifier = await AuthorityKeyIdentifierExtension.create(certificate.publicKey, false, engine)
  return { certificate, key: imported, algorithm, algorithmIdentifier, chain, roots, keyIdentifier }
}

function signingAlgorithm(key: KeyObject): Signing {
  const kind = key.asymmetricKeyType
  if (kind === 'rsa') return RSA
  const curve = key.asymmetricKeyDetails?.namedCurve ?? ''
  const found = kind === 'ec' ? CURVES[curve] : undefined
  if (found) return found
  throw new CulvertError('PKI', `a CA key of type ${kind ?? 'unknown'} ${curve} cannot sign here`, {
    hint: 'use an EC key on P-256, P-384 or P-521, or an RSA key',
  })
}
