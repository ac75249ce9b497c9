import { generateKeyPairSync, KeyObject, X509Certificate as NodeCertificate } from 'node:crypto'
import t from 'tap'
import { Authority } from '../../../ca-server/authority/authority.ts'
import { ENGINE_NAMES } from '../../../ca-server/authority/engine-name.ts'
import { engineOf } from '../../../ca-server/authority/engine.ts'
import { issuerFrom } from '../../../ca-server/authority/issuer.ts'
import { signWorkload } from '../../../ca-server/authority/leaf.ts'
import {
  BasicConstraintsExtension,
  PublicKey,
  X509Certificate,
  X509CertificateGenerator,
} from '../../../ca-server/authority/x509.ts'
import { temporaryDirectory } from '../../helpers/ca-server.ts'
import { quietLog } from '../../helpers/quiet-log.ts'

const authority = await Authority.open({
  trustDomain: 'cluster.local',
  source: { kind: 'own-root', directory: temporaryDirectory(t) },
  engine: 'node',
  log: quietLog().log,
})
const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
const key = new PublicKey(publicKey.export({ type: 'spki', format: 'der' }))

async function issuedFor(seconds: number): Promise<{ beganMs: number; endsMs: number; nowMs: number }> {
  const nowMs = Date.now()
  const { notBefore, notAfter } = await authority.issue('spiffe://cluster.local/ns/a/sa/b', {
    publicKey: key,
    ttlMs: seconds * 1000,
  })
  return { beganMs: notBefore.getTime(), endsMs: notAfter.getTime(), nowMs }
}

await t.test('a certificate begins two minutes ago, for clocks that are late', async t => {
  for (const seconds of [240, 3600, 86_400]) {
    const { beganMs, nowMs } = await issuedFor(seconds)
    t.ok(Math.abs(nowMs - 120_000 - beganMs) < 2000, `${seconds} s`)
  }
})

await t.test('the middle of its validity lies ahead, however short it is: ztunnel renews there', async t => {
  for (const seconds of [10, 20, 60, 239, 3600]) {
    const { beganMs, endsMs, nowMs } = await issuedFor(seconds)
    t.ok(beganMs < nowMs, 'begun')
    t.ok(Math.abs(nowMs + seconds * 1000 - endsMs) < 2000, 'as long as was asked')
    const aheadMs = (beganMs + endsMs) / 2 - nowMs
    t.ok(aheadMs >= seconds * 100, `${seconds} s: ${aheadMs} ms ahead`)
  }
})

const SIGNERS = [
  { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' },
  { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' },
  { name: 'ECDSA', namedCurve: 'P-521', hash: 'SHA-512' },
  {
    name: 'RSASSA-PKCS1-v1_5',
    hash: 'SHA-256',
    modulusLength: 2048,
    publicExponent: Uint8Array.of(1, 0, 1),
  },
]

for (const engine of ENGINE_NAMES)
  await t.test(
    `keys of every kind sign certificates that verify, with the same extensions (${engine})`,
    async t => {
      const identity = 'spiffe://cluster.local/ns/a/sa/b'
      for (const algorithm of SIGNERS) {
        const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
        const signer = await X509CertificateGenerator.createSelfSigned(
          {
            name: 'O=Example, CN=Signer',
            keys,
            signingAlgorithm: algorithm,
            notAfter: new Date('2120-01-01T00:00:00Z'),
            extensions: [new BasicConstraintsExtension(true, 0, true)],
          },
          crypto,
        )
        const issuer = await issuerFrom(
          signer,
          KeyObject.from(keys.privateKey),
          [],
          [signer.toString('pem')],
          engineOf(engine),
        )
        // Past 2049, when times have another form.
        for (const ttlMs of [60_000, 50 * 365 * 86_400_000])
          for (let at = 0; at < 5; at++) {
            const issued = await signWorkload(issuer, identity, { publicKey: key, ttlMs }, engineOf(engine))
            const leaf = new NodeCertificate(issued.chain[0]!)
            const root = new NodeCertificate(signer.toString('pem'))
            t.ok(leaf.checkIssued(root) && leaf.verify(root.publicKey), `${algorithm.name} ${algorithm.hash}`)
            t.equal(leaf.subjectAltName, `URI:${identity}`)
            t.equal(leaf.validToDate.getTime(), issued.notAfter.getTime())
            t.equal(leaf.validFromDate.getTime(), issued.notBefore.getTime())
            t.equal(leaf.fingerprint256.replaceAll(':', '').toLowerCase(), issued.fingerprint)
            const read = new X509Certificate(leaf.raw)
            t.strictSame(
              Array.from(read.extensions, ({ type, critical }) => [type, critical]),
              [
                ['2.5.29.19', true],
                ['2.5.29.15', true],
                ['2.5.29.37', false],
                ['2.5.29.35', false],
                ['2.5.29.17', true],
              ],
            )
          }
      }
    },
  )
