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
  type JsonGeneralName,
  type PublicKey,
} from './x509.ts'
import { CulvertError } from '../../lib/errors.ts'
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

export interface LeafRequest {
  readonly publicKey: PublicKey | CryptoKey
  /** From now on; what outlives the issuer is cut to the issuer's end. */
  readonly ttlMs: number
}

/** A workload's certificate: subject empty, the SPIFFE ID as its only (critical) name. Throws `PKI`. */
export function signWorkload(
  issuer: Issuer,
  identity: string,
  request: LeafRequest,
  engine: Engine,
): Promise<IssuedCertificate> {
  const names: JsonGeneralName[] = [{ type: 'url', value: identity }]
  return sign(issuer, '', new SubjectAlternativeNameExtension(names, true), BOTH_SIDES, request, engine)
}

/** The server's own certificate, for DNS names and IP addresses. Throws `PKI`. */
export function signServing(
  issuer: Issuer,
  names: { readonly dns: readonly string[]; readonly ips: readonly string[] },
  request: LeafRequest,
  engine: Engine,
): Promise<IssuedCertificate> {
  const all: JsonGeneralName[] = [
    ...names.dns.map(value => ({ type: 'dns' as const, value })),
    ...names.ips.map(value => ({ type: 'ip' as const, value })),
  ]
  return sign(issuer, 'CN=culvert-ca', new SubjectAlternativeNameExtension(all), SERVER_SIDE, request, engine)
}

async function sign(
  issuer: Issuer,
  subject: string,
  names: SubjectAlternativeNameExtension,
  usage: ExtendedKeyUsageExtension,
  request: LeafRequest,
  engine: Engine,
): Promise<IssuedCertificate> {
  const now = Date.now()
  const issuerEnds = issuer.certificate.notAfter
  if (issuerEnds.getTime() <= now)
    throw new CulvertError('PKI', `the signing certificate ended on ${issuerEnds.toISOString()}`)
  // Certificate times have whole seconds.
  const endsMs = Math.min(now + request.ttlMs, issuerEnds.getTime())
  const notBefore = wholeSeconds(now - Math.min(BACKDATE_MS, (endsMs - now) / 2))
  const notAfter = wholeSeconds(endsMs)
  const serial = newSerial()
  const certificate = await X509CertificateGenerator.create(
    {
      serialNumber: serial,
      subject,
      issuer: issuer.certificate.subjectName,
      notBefore,
      notAfter,
      signingKey: issuer.key,
      publicKey: request.publicKey,
      signingAlgorithm: issuer.algorithm,
      extensions: [END_ENTITY, SIGNS, usage, issuer.keyIdentifier, names],
    },
    engine,
  )
  return {
    chain: [`${certificate.toString('pem')}\n`, ...issuer.chain, issuer.roots.join('')],
    serial,
    notBefore,
    notAfter,
    fingerprint: createHash('sha256').update(new Uint8Array(certificate.rawData)).digest('hex'),
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
