/**
 * The authority's own root, for those who bring none: made on the first start, kept for ever. A certificate without
 * its key is refused rather than replaced, because agents may already trust it.
 */
import { createPrivateKey, randomBytes, X509Certificate as NodeCertificate } from 'node:crypto'
import {
  BasicConstraintsExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from './x509.ts'
import { CulvertError } from '../../lib/errors.ts'
import type { Engine } from './engine.ts'
import { issuerFrom, type Issuer } from './issuer.ts'
import { newSerial } from './leaf.ts'
import type { RootStore } from './root-store.ts'

const P256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const LIFETIME_YEARS = 10
// A root made on a machine whose clock is ahead must be valid on the others at once.
const BACKDATE_MS = 3_600_000

export interface OwnRootOptions {
  readonly store: RootStore
  readonly trustDomain: string
  readonly engine: Engine
}

export interface OpenedRoot {
  readonly issuer: Issuer
  /** True when this call made it. */
  readonly created: boolean
}

/** Opens the root that is kept, or makes it. Throws `PKI` when what is there cannot be used. */
export async function openOwnRoot({ store, trustDomain, engine }: OwnRootOptions): Promise<OpenedRoot> {
  const { names } = store
  let kept = await store.read()
  let created = false
  if (kept.key === undefined) {
    if (kept.certificate !== undefined)
      throw new CulvertError('PKI', `${names.certificate} is there but its key ${names.key} is not`, {
        hint: 'restore the key; or, to start over with a new root that nobody trusts yet, remove the certificate',
      })
    const key = await makeKey(engine)
    kept = await store.keep({ key, certificate: await makeCertificate(key, names.key, trustDomain, engine) })
    created = kept.key === key
  }
  const key = kept.key!
  let { certificate } = kept
  if (certificate === undefined) {
    certificate = await makeCertificate(key, names.key, trustDomain, engine)
    await store.complete(certificate)
    created = true
  }
  return { issuer: await load(key, names.key, certificate, names.certificate, engine), created }
}

async function makeKey(engine: Engine): Promise<string> {
  const pair = await engine.subtle.generateKey(P256, true, ['sign', 'verify'])
  const der = Buffer.from(await engine.subtle.exportKey('pkcs8', pair.privateKey))
  return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }).export({ type: 'pkcs8', format: 'pem' })
}

async function makeCertificate(
  keyPem: string,
  keyPath: string,
  trustDomain: string,
  engine: Engine,
): Promise<string> {
  const node = readKey(keyPem, keyPath)
  const pkcs8 = node.export({ type: 'pkcs8', format: 'der' })
  const privateKey = await engine.subtle.importKey('pkcs8', pkcs8, P256, false, ['sign'])
  const { d: _secret, ...publicJwk } = node.export({ format: 'jwk' })
  const publicKey = await engine.subtle.importKey('jwk', publicJwk, P256, true, ['verify'])
  const name = `O=${trustDomain},CN=Culvert root ${randomBytes(4).toString('hex')}`
  const notBefore = new Date(Date.now() - BACKDATE_MS)
  const notAfter = new Date(notBefore)
  notAfter.setUTCFullYear(notAfter.getUTCFullYear() + LIFETIME_YEARS)
  const certificate = await X509CertificateGenerator.create(
    {
      serialNumber: newSerial(),
      subject: name,
      issuer: name,
      notBefore,
      notAfter,
      signingKey: privateKey,
      publicKey,
      signingAlgorithm: P256,
      extensions: [
        new BasicConstraintsExtension(true, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
        await SubjectKeyIdentifierExtension.create(publicKey, false, engine),
      ],
    },
    engine,
  )
  return `${certificate.toString('pem')}\n`
}

async function load(
  keyPem: string,
  keyPath: string,
  certificatePem: string,
  certificatePath: string,
  engine: Engine,
): Promise<Issuer> {
  const key = readKey(keyPem, keyPath)
  let certificate: X509Certificate
  let node: NodeCertificate
  try {
    certificate = new X509Certificate(certificatePem)
    node = new NodeCertificate(certificatePem)
  } catch (err) {
    throw new CulvertError('PKI', `${certificatePath} is not a certificate in PEM`, { cause: err })
  }
  if (!node.checkPrivateKey(key))
    throw new CulvertError('PKI', `${keyPath} is not the key of ${certificatePath}`)
  if (certificate.notAfter.getTime() <= Date.now())
    throw new CulvertError(
      'PKI',
      `the root ${certificatePath} ended on ${certificate.notAfter.toISOString()}`,
    )
  return await issuerFrom(certificate, key, [], [`${certificate.toString('pem')}\n`], engine)
}

function readKey(pem: string, path: string): ReturnType<typeof createPrivateKey> {
  try {
    return createPrivateKey(pem)
  } catch (err) {
    throw new CulvertError('PKI', `${path} is not a private key in PEM`, { cause: err })
  }
}
