import * as fc from 'fast-check'
import t from 'tap'
import { createKeyAndRequest } from '../../../agent/identity/csr.ts'
import { engineOf } from '../../../ca-server/authority/engine.ts'
import { Pkcs10CertificateRequest } from '../../../ca-server/authority/x509.ts'
import { verifyCsr } from '../../../ca-server/issuance/csr.ts'
import { recognise } from '../../../ca-server/issuance/own-form.ts'
import { derOf, makeCsr, P256, pemOf, x509 } from '../../helpers/csr.ts'

const IDENTITY = 'spiffe://cluster.local/ns/shop/sa/client'

await t.test(
  "the agent's own request is recognised, with the key and the name that the library reads",
  async t => {
    for (const identity of [IDENTITY, `spiffe://c/ns/${'n'.repeat(63)}/sa/${'s'.repeat(253)}`]) {
      const { csr, publicKey } = await createKeyAndRequest(identity)
      const found = recognise(derOf(csr))
      t.equal(found?.uri, identity)
      t.ok(Buffer.from(found!.publicKey).equals(publicKey))
      t.ok(Buffer.from(new Pkcs10CertificateRequest(derOf(csr)).publicKey.rawData).equals(publicKey))
    }
  },
)

await t.test('a good request of any other form is left to the library, which takes it', async t => {
  const keys = await crypto.subtle.generateKey(P256, true, ['sign', 'verify'])
  const notCritical = new x509.SubjectAlternativeNameExtension([{ type: 'url', value: IDENTITY }], false)
  const csr = await makeCsr(IDENTITY, { keys, names: [], extensions: [notCritical] })
  t.equal(recognise(derOf(csr)), undefined)
  t.equal((await verifyCsr(csr, engineOf('node'))).uri, IDENTITY)
})

await t.test('a request with any byte changed is not recognised', async t => {
  const der = derOf((await createKeyAndRequest(IDENTITY)).csr)
  for (let at = 0; at < der.length; at++) {
    const changed = Buffer.from(der)
    changed[at]! ^= 1
    if (recognise(changed) !== undefined) t.fail(`byte ${at}`)
  }
  t.equal(recognise(Buffer.concat([der, Buffer.of(0)])), undefined)
  t.equal(recognise(der.subarray(0, -1)), undefined)
})

await t.test('whatever the bytes, what is recognised is what the library accepts', async () => {
  const good = derOf((await createKeyAndRequest(IDENTITY)).csr)
  const mutated = fc
    .array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 })
    .map(changes => {
      const der = Buffer.from(good)
      for (const [at, value] of changes) der[at] = value
      return der
    })
  await fc.assert(
    fc.asyncProperty(fc.oneof(mutated, fc.uint8Array({ maxLength: 300 })), async der => {
      const found = recognise(der)
      if (!found) return true
      const { uri } = await verifyCsr(pemOf(der), engineOf('node'))
      return uri === found.uri && uri === IDENTITY
    }),
    { numRuns: 300 },
  )
})
