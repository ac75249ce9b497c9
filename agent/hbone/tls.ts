/**
 * TLS as the mesh speaks it: 1.3 only, ALPN `h2`, certificates both ways, the peer known by its SPIFFE ID and
 * nothing else (no SNI, no DNS names). Contexts are dear (0.4 ms): one per certificate, not per connection.
 */
import {
  createSecureContext,
  type PeerCertificate,
  type SecureContext,
  type SecureContextOptions,
  type TLSSocket,
} from 'node:tls'
import { CulvertError, errorCode, errorText } from '../../lib/errors.ts'
import { parseSpiffe, spiffeIdsOf } from '../../lib/spiffe.ts'

/** What ztunnel offers, and all that it takes. */
const CIPHERS = 'TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256'
/** The first that both know is used: hybrid post-quantum where the peer has it. */
const GROUPS = 'X25519MLKEM768:X25519:P-256'

export interface TlsMaterial {
  /** PKCS #8 PEM. */
  readonly key: string
  /** PEM, leaf first. */
  readonly chain: string
  /** PEM roots that peers must chain to. */
  readonly roots: string
}

export function contextOptions(material: TlsMaterial): SecureContextOptions {
  return {
    key: material.key,
    cert: material.chain,
    ca: material.roots,
    minVersion: 'TLSv1.3',
    maxVersion: 'TLSv1.3',
    ciphers: CIPHERS,
    ecdhCurve: GROUPS,
  }
}

/** Throws `PKI` when key and certificate do not belong together or cannot be read. */
export function secureContext(material: TlsMaterial): SecureContext {
  try {
    return createSecureContext(contextOptions(material))
  } catch (err) {
    throw new CulvertError('PKI', 'certificate and key cannot be used for TLS', { cause: err })
  }
}

/** For `tls.connect`'s checkServerIdentity: the server must present one of these SPIFFE IDs. */
export function expectIdentity(
  expected: readonly string[],
): (host: string, cert: PeerCertificate) => Error | undefined {
  return (_host, cert) => {
    const presented = spiffeIdsOf(cert.subjectaltname)
    if (presented.some(id => expected.includes(id))) return undefined
    return new CulvertError(
      'IDENTITY',
      `peer is not ${expected.join(' or ') || 'anyone we expect'}: it presented ${presented.join(', ') || 'no SPIFFE ID'}`,
    )
  }
}

/**
 * The SPIFFE ID of a client whose chain OpenSSL has verified. Its trust domain must be ours. Throws `IDENTITY`.
 */
export function clientIdentity(socket: TLSSocket, trustDomain: string): string {
  const certificate = socket.getPeerX509Certificate()
  // OpenSSL has looked, but not when the session is the resumption of one from before.
  if (certificate && certificate.validToDate.getTime() < Date.now())
    throw new CulvertError(
      'IDENTITY',
      `client certificate expired at ${certificate.validToDate.toISOString()}`,
    )
  const [identity] = spiffeIdsOf(certificate?.subjectAltName)
  if (identity === undefined) throw new CulvertError('IDENTITY', 'client presented no SPIFFE ID')
  const domain = parseSpiffe(identity)?.trustDomain
  if (domain !== trustDomain)
    throw new CulvertError(
      'IDENTITY',
      `client ${identity} is of trust domain '${domain}', ours is '${trustDomain}'`,
    )
  return identity
}

/**
 * Why a client was turned away, for a log line: what was wrong with its certificate (`CERT_HAS_EXPIRED`, …), or what
 * OpenSSL says without the places in its source.
 */
export function handshakeFailure(
  err: Error,
  socket: TLSSocket,
): { error: string; errorCode: string | undefined } {
  const refused = socket.authorizationError as unknown as string | null | undefined
  if (refused) return { error: `client certificate not accepted: ${refused}`, errorCode: refused }
  const reason = 'reason' in err && typeof err.reason === 'string' ? err.reason : errorText(err)
  return { error: `TLS handshake failed: ${reason}`, errorCode: errorCode(err) }
}
