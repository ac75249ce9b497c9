/**
 * A company's own PKI: an intermediate key and certificate chain from files, under roots that are already
 * trusted elsewhere. Everything that a verifier would trip over later is checked here, and named.
 */
import { createPrivateKey, X509Certificate as NodeCertificate, type KeyObject } from 'node:crypto'
import { BasicConstraintsExtension, KeyUsageFlags, KeyUsagesExtension, X509Certificate } from './x509.ts'
import { CulvertError } from '../../lib/errors.ts'
import type { Engine } from './engine.ts'
import { issuerFrom, type Issuer } from './issuer.ts'

export interface IntermediatePem {
  /** PKCS #8, SEC 1 or PKCS #1. */
  readonly key: string
  /** The signing certificate first, then what lies between it and the root. */
  readonly chain: string
  readonly roots: string
}

/** An issuer from PEM. Throws `PKI` with the first thing that is wrong; never has key material in a message. */
export async function intermediateFrom(pem: IntermediatePem, engine: Engine): Promise<Issuer> {
  const key = readKey(pem.key)
  const roots = certificatesOf(pem.roots, 'the root file')
  const chain = certificatesOf(pem.chain, 'the chain file')
  const signer = chain[0]!
  const between = chain.filter(certificate => !isSelfSigned(certificate))
  for (const root of roots) checkAuthority(root, 'the root')
  for (const certificate of chain) checkAuthority(certificate, 'the certificate')
  if (!signer.checkPrivateKey(key))
    throw new CulvertError('PKI', `the key is not that of the chain's first certificate ${nameOf(signer)}`)
  checkPath(isSelfSigned(signer) ? [signer] : between, roots)
  return await issuerFrom(
    new X509Certificate(signer.raw),
    key,
    between.map(certificate => certificate.toString()),
    roots.map(certificate => certificate.toString()),
    engine,
  )
}

function readKey(pem: string): KeyObject {
  if (/ENCRYPTED/.test(pem))
    throw new CulvertError('PKI', 'the CA key is encrypted with a passphrase', {
      hint: 'give it unencrypted in a Secret or a file that only this server can read',
    })
  try {
    return createPrivateKey(pem)
  } catch (err) {
    throw new CulvertError('PKI', 'the CA key is not a private key in PEM', { cause: err })
  }
}

/** All certificates of a PEM text, at least one. */
function certificatesOf(pem: string, what: string): NodeCertificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  if (blocks.length === 0) throw new CulvertError('PKI', `${what} holds no certificate in PEM`)
  return blocks.map((block, at) => {
    try {
      return new NodeCertificate(block)
    } catch (err) {
      throw new CulvertError('PKI', `certificate ${at + 1} of ${what} cannot be read`, { cause: err })
    }
  })
}

function checkAuthority(certificate: NodeCertificate, what: string): void {
  const name = `${what} ${nameOf(certificate)}`
  const now = Date.now()
  if (certificate.validToDate.getTime() <= now)
    throw new CulvertError('PKI', `${name} ended on ${certificate.validToDate.toISOString()}`)
  if (certificate.validFromDate.getTime() > now)
    throw new CulvertError('PKI', `${name} begins only on ${certificate.validFromDate.toISOString()}`)
  const parsed = new X509Certificate(certificate.raw)
  if (!parsed.getExtension(BasicConstraintsExtension)?.ca)
    throw new CulvertError('PKI', `${name} is not a CA certificate (basic constraints)`)
  const usage = parsed.getExtension(KeyUsagesExtension)
  if (usage && (usage.usages & KeyUsageFlags.keyCertSign) === 0)
    throw new CulvertError('PKI', `${name} may not sign certificates (key usage)`)
}

/** Each certificate must be signed by the next one, and the last by a root. */
function checkPath(path: readonly NodeCertificate[], roots: readonly NodeCertificate[]): void {
  path.forEach((certificate, at) => {
    const above = at + 1 < path.length ? [path[at + 1]!] : roots
    const constraint = new X509Certificate(certificate.raw).getExtension(
      BasicConstraintsExtension,
    )?.pathLength
    if (constraint !== undefined && constraint < at)
      throw new CulvertError('PKI', `${nameOf(certificate)} allows ${constraint} CAs below it, but has ${at}`)
    if (above.some(issuer => certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey))) return
    const expected =
      at + 1 < path.length ? `the next one in the chain, ${nameOf(above[0]!)}` : 'any given root'
    throw new CulvertError('PKI', `${nameOf(certificate)} is not signed by ${expected}`)
  })
}

function isSelfSigned(certificate: NodeCertificate): boolean {
  return certificate.checkIssued(certificate) && certificate.verify(certificate.publicKey)
}

function nameOf(certificate: NodeCertificate): string {
  return `'${certificate.subject?.replaceAll('\n', ', ') ?? 'without a subject'}'`
}
