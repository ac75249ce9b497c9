import { execFileSync } from 'node:child_process'
import { createPrivateKey, createPublicKey } from 'node:crypto'
import 'reflect-metadata'
import * as x509 from '@peculiar/x509'
import * as fc from 'fast-check'
import t from 'tap'
import { createKeyAndRequest } from '../../../agent/identity/csr.ts'
import { formatSpiffe } from '../../../lib/spiffe.ts'

const IDENTITY = 'spiffe://cluster.local/ns/shop/sa/client'
const label = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/)

await t.test(
  'an X.509 library finds one critical URI name, no subject, and a signature that holds',
  async () => {
    await fc.assert(
      fc.asyncProperty(label, label, label, async (trustDomain, namespace, account) => {
        const identity = formatSpiffe(trustDomain, namespace, account)
        const { csr, publicKey } = await createKeyAndRequest(identity)
        const request = new x509.Pkcs10CertificateRequest(csr)
        if (!(await request.verify())) throw new Error('the signature does not hold')
        if (request.subject !== '') throw new Error('there is a subject')
        if (request.extensions.length !== 1) throw new Error('there is more than one extension')
        const names = request.extensions.find(found => found instanceof x509.SubjectAlternativeNameExtension)
        if (!names?.critical) throw new Error('the names are not critical')
        const found = JSON.stringify(names.names.toJSON())
        if (found !== JSON.stringify([{ type: 'url', value: identity }])) throw new Error(`names: ${found}`)
        if (!Buffer.from(request.publicKey.rawData).equals(publicKey)) throw new Error('another key')
      }),
      { numRuns: 25 },
    )
  },
)

await t.test('openssl accepts the request and prints what was asked for', async t => {
  const { csr } = await createKeyAndRequest(IDENTITY)
  const printed = execFileSync('openssl', ['req', '-noout', '-verify', '-text'], {
    input: csr,
    encoding: 'utf8',
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  t.match(printed, `URI:${IDENTITY}`)
  t.match(printed, /Subject Alternative Name: critical/)
  t.match(printed, /NIST CURVE: P-256/)
  t.match(printed, /ecdsa-with-SHA256/)
  t.match(printed, /Subject:\s*\n/)
})

await t.test('the key is new every time, and is the one in the request', async t => {
  const first = await createKeyAndRequest(IDENTITY)
  const second = await createKeyAndRequest(IDENTITY)
  t.not(first.key, second.key)
  const derived = createPublicKey(createPrivateKey(first.key)).export({ type: 'spki', format: 'der' })
  t.ok(derived.equals(first.publicKey))
})
