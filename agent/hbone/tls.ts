/**
 * TLS as the mesh speaks it: 1.3 only, ALPN `h2`, certificates both ways, the peer known by its SPIFFE ID and
 * nothing else (no SNI, no DNS names). Contexts are dear (0.4 ms): one per certificate, not per connection.
 */
import type { X509Certificate } from 'node:crypto'
import { CulvertError } from '../../lib/errors.ts'
import { parseSpiffe, spiffeIdsOf } from '../../lib/spiffe.ts'

/** Makes sure that a server whose chain is verified presents one of these SPIFFE IDs. Throws `IDENTITY`. */
export function expectIdentity(certificate: X509Certificate | undefined, expected: readonly string[]): void {
  const presented = spiffeIdsOf(certificate?.subjectAltName)
  if (presented.some(id => expected.includes(id))) return
  throw new CulvertError(
    'IDENTITY',
    `peer is not ${expected.join(' or ') || 'anyone we expect'}: it presented ${presented.join(', ') || 'no SPIFFE ID'}`,
  )
}

/**
 * The SPIFFE ID of a client whose chain OpenSSL has verified. Its trust domain must be ours. Throws `IDENTITY`.
 */
export function clientIdentity(certificate: X509Certificate | undefined, trustDomain: string): string {
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
