import * as fc from 'fast-check'
import t from 'tap'
import { engineOf } from '../../../ca-server/authority/engine.ts'
import { verifyCsr } from '../../../ca-server/issuance/csr.ts'
import { Refusal } from '../../../ca-server/refusal.ts'
import { derOf, makeCsr, P256, pemOf, uri, x509 } from '../../helpers/csr.ts'

const IDENTITY = 'spiffe://cluster.local/ns/shop/sa/client'
const peculiar = engineOf('peculiar')

for (const name of ['peculiar', 'node'] as const)
  await t.test(`a good request gives its key and its one name (${name})`, async t => {
    const keys = await crypto.subtle.generateKey(P256, true, ['sign', 'verify'])
    const { publicKey, uri } = await verifyCsr(await makeCsr(IDENTITY, { keys }), engineOf(name))
    t.equal(uri, IDENTITY)
    t.strictSame(
      Buffer.from(publicKey.rawData),
      Buffer.from(await crypto.subtle.exportKey('spki', keys.publicKey)),
    )
  })

await t.test('every other request is refused with its own reason', async t => {
  const rsa = {
    name: 'RSASSA-PKCS1-v1_5',
    hash: 'SHA-256',
    modulusLength: 2048,
    publicExponent: Uint8Array.of(1, 0, 1),
  }
  const good = await makeCsr(IDENTITY)
  const flipped = derOf(good)
  flipped[flipped.length - 1]! ^= 1
  const cases: [reason: string, pem: string][] = [
    ['csr-too-large', good + ' '.repeat(9000)],
    ['csr-malformed', ''],
    ['csr-malformed', 'no request'],
    ['csr-malformed', good + good],
    ['csr-malformed', `${good}\nmore`],
    ['csr-malformed', pemOf(Uint8Array.of())],
    ['csr-malformed', pemOf(Uint8Array.of(0x30, 0x80, 0, 0))],
    ['csr-malformed', pemOf(Buffer.concat([derOf(good), Buffer.from([5, 0])]))],
    ['csr-malformed', pemOf(derOf(good).subarray(0, 100))],
    ['csr-malformed', pemOf(nested(2000))],
    ['csr-signature', pemOf(flipped)],
    ['csr-signature', await makeCsr(IDENTITY, { algorithm: { ...P256, hash: 'SHA-384' } })],
    [
      'csr-key',
      await makeCsr(IDENTITY, { algorithm: { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-256' } }),
    ],
    ['csr-key', await makeCsr(IDENTITY, { algorithm: rsa })],
    ['csr-names', await makeCsr(IDENTITY, { subject: 'CN=admin' })],
    ['csr-names', await makeCsr(IDENTITY, { names: [] })],
    [
      'csr-names',
      await makeCsr(IDENTITY, { names: [...uri(IDENTITY), ...uri('spiffe://cluster.local/ns/a/sa/b')] }),
    ],
    [
      'csr-names',
      await makeCsr(IDENTITY, { names: [...uri(IDENTITY), { type: 'dns', value: 'api.example.com' }] }),
    ],
    ['csr-names', await makeCsr(IDENTITY, { names: [{ type: 'dns', value: 'api.example.com' }] })],
    [
      'csr-extensions',
      await makeCsr(IDENTITY, { extensions: [new x509.BasicConstraintsExtension(true, undefined, true)] }),
    ],
    [
      'csr-extensions',
      await makeCsr(IDENTITY, { names: [], extensions: [new x509.BasicConstraintsExtension(true)] }),
    ],
    [
      'csr-extensions',
      await makeCsr(IDENTITY, { attributes: [new x509.ChallengePasswordAttribute('secret')] }),
    ],
  ]
  for (const [reason, pem] of cases)
    await t.rejects(verifyCsr(pem, peculiar), { name: 'Refusal', reason }, `${reason}: ${pem.slice(0, 60)}`)
})

await t.test('a public key that is no point of its curve is refused', async t => {
  const der = derOf(await makeCsr(IDENTITY))
  const at = der.indexOf(Buffer.from('034200', 'hex')) + 4 // BIT STRING, uncompressed point follows
  der.fill(0xaa, at, at + 64)
  await t.rejects(verifyCsr(pemOf(der), peculiar), { name: 'Refusal', reason: /csr-key|csr-signature/ })
})

await t.test('whatever the bytes, the answer is a verdict and never another error', async () => {
  const good = derOf(await makeCsr(IDENTITY))
  const mutated = fc
    .array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 })
    .map(changes => {
      const der = Buffer.from(good)
      for (const [at, value] of changes) der[at] = value
      return pemOf(der)
    })
  const text = fc.oneof(mutated, fc.uint8Array({ maxLength: 300 }).map(pemOf), fc.string())
  await fc.assert(
    fc.asyncProperty(text, async pem => {
      try {
        const { uri } = await verifyCsr(pem, peculiar)
        return uri === IDENTITY // changed into what it was
      } catch (err) {
        return err instanceof Refusal
      }
    }),
    { numRuns: 400 },
  )
})

/** Sequences within sequences, as deep as the size allows. */
function nested(depth: number): Uint8Array {
  let inner = Buffer.alloc(0)
  for (let level = 0; level < depth; level++) {
    const { length } = inner
    const header = length < 0x80 ? [0x30, length] : [0x30, 0x82, length >> 8, length & 0xff]
    inner = Buffer.concat([Buffer.from(header), inner])
    if (inner.length > 5900) break
  }
  return inner
}
