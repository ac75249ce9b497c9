/** A member of an arm's mesh who means no good: a key of its own, and a certificate that the mesh's authority has signed. */
import { createPrivateKey, generateKeyPairSync, X509Certificate as NodeCertificate } from 'node:crypto'
import { engineOf } from '../../ca-server/authority/engine.ts'
import { issuerFrom } from '../../ca-server/authority/issuer.ts'
import { signWorkload } from '../../ca-server/authority/leaf.ts'
import { X509Certificate } from '../../ca-server/authority/x509.ts'
import { CulvertError } from '../../lib/errors.ts'
import { NAMESPACE } from '../world.ts'

/** PEM; never written anywhere. */
export interface Credentials {
  readonly key: string
  readonly cert: string
}

const HOUR_MS = 3_600_000
const PEM = /-----BEGIN (CERTIFICATE|PRIVATE KEY)-----[A-Za-z0-9+/=\s]+-----END \1-----/g

/**
 * Signed with the authority that these texts hold: certificates and private keys, of which one must belong to the other.
 * Throws `PKI` when none does.
 */
export async function strangerOf(texts: readonly string[]): Promise<Credentials> {
  const blocks = texts.flatMap(text => text.match(PEM) ?? [])
  const keys = blocks.filter(block => block.includes('PRIVATE KEY')).map(block => createPrivateKey(block))
  const certificates = blocks
    .filter(block => !block.includes('PRIVATE KEY'))
    .map(pem => new NodeCertificate(pem))
  for (const certificate of certificates) {
    const key = keys.find(key => certificate.checkPrivateKey(key))
    if (!key) continue
    const engine = engineOf('node')
    const issuer = await issuerFrom(new X509Certificate(certificate.raw), key, [], [], engine)
    const own = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const spki = Uint8Array.from(own.publicKey.export({ type: 'spki', format: 'der' }))
    const identity = `spiffe://cluster.local/ns/${NAMESPACE}/sa/stranger`
    const request = { publicKey: { rawData: spki.buffer }, ttlMs: HOUR_MS }
    const { chain } = await signWorkload(issuer, identity, request, engine)
    return { key: own.privateKey.export({ type: 'pkcs8', format: 'pem' }), cert: chain[0]! }
  }
  throw new CulvertError('PKI', 'there is no authority whose certificate and key are both there')
}
