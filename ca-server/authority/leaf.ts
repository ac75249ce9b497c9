/**
 * The two kinds of end certificates that the authority signs, and nothing but these: a workload's, whose only
 * name is its SPIFFE ID, and the server's own. The profile is the one that data planes of the Istio family
 * verify: one URI SAN, key usage digitalSignature, both EKUs (X.509-SVID.md §3–4; RFC 5280 §4.2).
 */
import { createHash, randomBytes } from 'node:crypto'
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
  type Extension,
  type JsonGeneralName,
  type PublicKey,
} from './x509.ts'
import { CulvertError } from '../../lib/errors.ts'
import { bitString, contextConstructed, integer, integerOf, pem, sequence, time } from '../../lib/pki/der.ts'
import { uriExtension } from '../../lib/pki/request.ts'
import type { Engine } from './engine.ts'
import type { Issuer } from './issuer.ts'

// Clocks of nodes differ: a certificate is valid a little before it was made. Never by more than half of what it has to
// live, though: a ztunnel renews in the middle between both dates, and without pause when that lies in the past.
const BACKDATE_MS = 120_000

const END_ENTITY = new BasicConstraintsExtension(false, undefined, true)
const SIGNS = new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true)
const BOTH_SIDES = new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth])
const SERVER_SIDE = new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth])

export interface IssuedCertificate {
  /** PEM blocks: the leaf, intermediates, and last all the roots in one. */
  readonly chain: readonly string[]
  /** Hexadecimal. */
  readonly serial: string
  readonly notBefore: Date
  readonly notAfter: Date
  /** SHA-256 of the DER, hexadecimal. */
  readonly fingerprint: string
}

export interface LeafRequest<Key = SubjectKey> {
  readonly publicKey: Key
  /** From now on; what outlives the issuer is cut to the issuer's end. */
  readonly ttlMs: number
}

/** A public key as certificates hold it. */
export interface SubjectKey {
  /** SubjectPublicKeyInfo, DER. */
  readonly rawData: ArrayBuffer
}

// Of a certificate for a workload, all but key, name, number and times is always the same.
const VERSION_3 = contextConstructed(0, integer(2))
const NO_SUBJECT = sequence()
const WORKLOAD_EXTENSIONS = [END_ENTITY, SIGNS, BOTH_SIDES].map(derOf)

/**
 * A workload's certificate: subject empty, the SPIFFE ID as its only (critical) name. Throws `PKI`. It is written by hand:
 * a node that starts asks for one for each of its pods, and the library takes ten times as long for each.
 */
export async function signWorkload(
  issuer: Issuer,
  identity: string,
  request: LeafRequest,
  engine: Engine,
): Promise<IssuedCertificate> {
  const { serial, notBefore, notAfter } = begin(issuer, request.ttlMs)
  const extensions = sequence(...WORKLOAD_EXTENSIONS, derOf(issuer.keyIdentifier), uriExtension(identity))
  const content = sequence(
    VERSION_3,
    integerOf(Buffer.from(serial, 'hex')),
    issuer.algorithmIdentifier,
    new Uint8Array(issuer.certificate.subjectName.toArrayBuffer()),
    sequence(time(notBefore), time(notAfter)),
    NO_SUBJECT,
    new Uint8Array(request.publicKey.rawData),
    contextConstructed(3, extensions),
  )
  const signature = bitString(await signatureOf(issuer, content, engine))
  const der = sequence(content, issuer.algorithmIdentifier, signature)
  return issuedFrom(issuer, der, pem('CERTIFICATE', der), { serial, notBefore, notAfter })
}

/** WebCrypto gives the two numbers of an ECDSA signature as they are, certificates have them as a sequence (RFC 3279 §2.2.3). */
async function signatureOf(issuer: Issuer, content: Uint8Array, engine: Engine): Promise<Uint8Array> {
  const signature = new Uint8Array(
    await engine.subtle.sign(issuer.algorithm, issuer.key, new Uint8Array(content)),
  )
  if (issuer.algorithm.name !== 'ECDSA') return signature
  const half = signature.length / 2
  return sequence(integerOf(signature.subarray(0, half)), integerOf(signature.subarray(half)))
}

function derOf(extension: Extension): Uint8Array {
  return new Uint8Array(extension.rawData)
}

/** The server's own certificate, for DNS names and IP addresses. Throws `PKI`. */
export async function signServing(
  issuer: Issuer,
  served: { readonly dns: readonly string[]; readonly ips: readonly string[] },
  request: LeafRequest<PublicKey>,
  engine: Engine,
): Promise<IssuedCertificate> {
  const validity = begin(issuer, request.ttlMs)
  const all: JsonGeneralName[] = [
    ...served.dns.map(value => ({ type: 'dns' as const, value })),
    ...served.ips.map(value => ({ type: 'ip' as const, value })),
  ]
  const names = new SubjectAlternativeNameExtension(all)
  const certificate = await X509CertificateGenerator.create(
    {
      serialNumber: validity.serial,
      subject: 'CN=culvert-ca',
      issuer: issuer.certificate.subjectName,
      notBefore: validity.notBefore,
      notAfter: validity.notAfter,
      signingKey: issuer.key,
      publicKey: request.publicKey,
      signingAlgorithm: issuer.algorithm,
      extensions: [END_ENTITY, SIGNS, SERVER_SIDE, issuer.keyIdentifier, names],
    },
    engine,
  )
  return issuedFrom(issuer, new Uint8Array(certificate.rawData), `${certificate.toString('pem')}\n`, validity)
}

interface Validity {
  readonly serial: string
  readonly notBefore: Date
  readonly notAfter: Date
}

/** Throws `PKI` when the issuer's own certificate has ended. */
function begin(issuer: Issuer, ttlMs: number): Validity {
  const now = Date.now()
  const issuerEnds = issuer.certificate.notAfter
  if (issuerEnds.getTime() <= now)
    throw new CulvertError('PKI', `the signing certificate ended on ${issuerEnds.toISOString()}`)
  // Certificate times have whole seconds.
  const endsMs = Math.min(now + ttlMs, issuerEnds.getTime())
  const notBefore = wholeSeconds(now - Math.min(BACKDATE_MS, (endsMs - now) / 2))
  return { serial: newSerial(), notBefore, notAfter: wholeSeconds(endsMs) }
}

function issuedFrom(issuer: Issuer, der: Uint8Array, text: string, validity: Validity): IssuedCertificate {
  return {
    ...validity,
    chain: [text, ...issuer.chain, issuer.roots.join('')],
    fingerprint: createHash('sha256').update(der).digest('hex'),
  }
}

function wholeSeconds(ms: number): Date {
  return new Date(Math.floor(ms / 1000) * 1000)
}

/** 127 random bits, positive and of even length as RFC 5280 §4.1.2.2 wants. */
export function newSerial(): string {
  const bytes = randomBytes(16)
  bytes[0] = (bytes[0]! & 0x7f) | 0x40 // no sign bit, no leading zero octet
  return bytes.toString('hex')
}
