/**
 * Looks at what a certificate service answered before anything uses it: the leaf must hold the key that was sent, name
 * the identity that was asked for and nobody else, be valid now, and lead to a root. Everything in an answer is
 * bounded, and whatever is wrong with it is one `PKI` error.
 */
import { X509Certificate } from 'node:crypto'
import { CulvertError, errorText } from '../../lib/errors.ts'

const MOST_CERTIFICATES = 32
const MOST_BYTES = 256 * 1024
const PEM = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g

export interface VerifiedChain {
  /** PEM, leaf first, then the intermediates as they came; no roots. */
  readonly chain: string
  /** The self-signed certificates of the answer. */
  readonly roots: readonly X509Certificate[]
  /** Hexadecimal, as logs and `openssl x509 -serial` print it. */
  readonly serial: string
  readonly notBeforeMs: number
  /** When the first certificate on the way from the leaf to the root ends. */
  readonly notAfterMs: number
}

export interface ChainQuestion {
  /** `cert_chain` of the answer: leaf first; an element may hold several PEM blocks. */
  readonly answer: readonly string[]
  /** SPIFFE ID that was asked for. */
  readonly identity: string
  /** SubjectPublicKeyInfo that was sent, DER. */
  readonly publicKey: Buffer
  /** Roots that are trusted whether or not the answer names them. */
  readonly bundle: readonly X509Certificate[]
  readonly nowMs: number
}

/** Checks an answer. Throws `PKI`, naming what is wrong. */
export function verifyChain(question: ChainQuestion): VerifiedChain {
  const [leaf, ...others] = parseAnswer(question.answer)
  if (!leaf) throw new CulvertError('PKI', 'the certificate service answered without a certificate')
  checkLeaf(leaf, question)
  const roots = others.filter(isSelfSigned)
  const intermediates = others.filter(certificate => !isSelfSigned(certificate))
  const path = findPath(leaf, intermediates, [...roots, ...question.bundle], question.nowMs)
  if (!path)
    throw new CulvertError('PKI', 'the certificate that was issued does not lead to any known root', {
      hint: 'look at the order of the chain, the validity of its certificates and the trust bundle',
    })
  return {
    chain: [leaf, ...intermediates].map(certificate => certificate.toString()).join(''),
    roots,
    serial: leaf.serialNumber.toLowerCase(),
    notBeforeMs: leaf.validFromDate.getTime(),
    notAfterMs: Math.min(...path.map(certificate => certificate.validToDate.getTime())),
  }
}

/** Reports whether a certificate is its own issuer: a root. */
export function isSelfSigned(certificate: X509Certificate): boolean {
  return isIssuedBy(certificate, certificate)
}

function parseAnswer(answer: readonly string[]): X509Certificate[] {
  const bytes = answer.reduce((sum, part) => sum + part.length, 0)
  if (bytes > MOST_BYTES)
    throw new CulvertError(
      'PKI',
      `the certificate service answered with ${bytes} bytes; at most ${MOST_BYTES} are read`,
    )
  const blocks = answer.flatMap(part => part.match(PEM) ?? [])
  if (blocks.length > MOST_CERTIFICATES)
    throw new CulvertError(
      'PKI',
      `the certificate service answered with ${blocks.length} certificates; at most ${MOST_CERTIFICATES} are read`,
    )
  return blocks.map((block, at) => {
    try {
      return new X509Certificate(block)
    } catch (err) {
      throw new CulvertError('PKI', `certificate ${at + 1} of the answer cannot be read: ${errorText(err)}`)
    }
  })
}

function checkLeaf(leaf: X509Certificate, { identity, publicKey, nowMs }: ChainQuestion): void {
  const names = (leaf.subjectAltName ?? '').split(', ').filter(name => name.startsWith('URI:'))
  if (names.length !== 1 || names[0] !== `URI:${identity}`)
    throw new CulvertError(
      'PKI',
      `the certificate that was issued is for '${leaf.subjectAltName ?? ''}', not for ${identity}`,
    )
  if (!exportedKey(leaf)?.equals(publicKey))
    throw new CulvertError(
      'PKI',
      `the certificate that was issued for ${identity} holds another key than was sent`,
    )
  if (leaf.ca)
    throw new CulvertError('PKI', `the certificate that was issued for ${identity} is a CA certificate`)
  if (leaf.validToDate.getTime() <= nowMs)
    throw new CulvertError(
      'PKI',
      `the certificate that was issued for ${identity} ended at ${leaf.validToDate.toISOString()}`,
      { hint: "compare this node's clock with the certificate service's" },
    )
  if (leaf.validFromDate.getTime() > nowMs)
    throw new CulvertError(
      'PKI',
      `the certificate that was issued for ${identity} begins only at ${leaf.validFromDate.toISOString()}`,
      { hint: "compare this node's clock with the certificate service's" },
    )
}

function exportedKey(certificate: X509Certificate): Buffer | undefined {
  try {
    return certificate.publicKey.export({ type: 'spki', format: 'der' })
  } catch {
    return undefined // a kind of key that OpenSSL does not know
  }
}

/** Leaf to root through any order of intermediates, depth first. Each is looked at once, so a knot of them costs nothing. */
function findPath(
  leaf: X509Certificate,
  intermediates: readonly X509Certificate[],
  roots: readonly X509Certificate[],
  nowMs: number,
): X509Certificate[] | undefined {
  const unseen = new Set(intermediates.filter(certificate => certificate.ca && isValid(certificate, nowMs)))
  const climb = (from: X509Certificate): X509Certificate[] | undefined => {
    const root = roots.find(root => isValid(root, nowMs) && isIssuedBy(from, root))
    if (root) return [from, root]
    for (const next of unseen) {
      if (!isIssuedBy(from, next)) continue
      unseen.delete(next)
      const rest = climb(next)
      if (rest) return [from, ...rest]
    }
    return undefined
  }
  return climb(leaf)
}

function isValid(certificate: X509Certificate, nowMs: number): boolean {
  return certificate.validFromDate.getTime() <= nowMs && nowMs < certificate.validToDate.getTime()
}

function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  try {
    return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey)
  } catch {
    return false // a kind of key that OpenSSL does not know
  }
}
