import { X509Certificate } from 'node:crypto'
import * as fc from 'fast-check'
import t from 'tap'
import { verifyChain, type ChainQuestion } from '../../../agent/identity/chain.ts'
import { createKeyAndRequest } from '../../../agent/identity/csr.ts'
import { CulvertError } from '../../../lib/errors.ts'
import { createIntermediate, createRoot, issueLeaf } from '../../helpers/test-pki.ts'

const IDENTITY = 'spiffe://cluster.local/ns/shop/sa/client'
const { publicKey } = await createKeyAndRequest(IDENTITY)
const spki = new Uint8Array(publicKey)
const root = await createRoot('root')
const leaf = await issueLeaf(root, spki, { identity: IDENTITY })

function ask(answer: readonly string[], more: Partial<ChainQuestion> = {}): ChainQuestion {
  return { answer, identity: IDENTITY, publicKey, bundle: [], nowMs: Date.now(), ...more }
}

await t.test('a leaf and its root: the root is set apart, the chain is the leaf', async t => {
  const verified = verifyChain(ask([leaf, root.pem]))
  t.equal(verified.chain, new X509Certificate(leaf).toString())
  t.equal(verified.roots.length, 1)
  t.match(verified.serial, /^[0-9a-f]+$/)
  t.equal(verified.notAfterMs, new X509Certificate(leaf).validToDate.getTime())
})

await t.test('several PEM blocks in one element count as several certificates', async t => {
  const other = await createRoot('the next root')
  const verified = verifyChain(ask([leaf, `${root.pem}\n# the next one\n${other.pem}`]))
  t.equal(verified.roots.length, 2)
})

await t.test('intermediates are kept in the chain, in whatever order they came', async t => {
  const upper = await createIntermediate(root, 'upper')
  const lower = await createIntermediate(upper, 'lower')
  const below = await issueLeaf(lower, spki, { identity: IDENTITY })
  for (const answer of [
    [below, lower.pem, upper.pem, root.pem],
    [below, root.pem, upper.pem, lower.pem],
  ]) {
    const verified = verifyChain(ask(answer))
    t.equal(verified.chain.match(/BEGIN CERTIFICATE/g)?.length, 3)
  }
})

await t.test('a root that only the trust bundle knows is enough', async t => {
  const verified = verifyChain(ask([leaf], { bundle: [new X509Certificate(root.pem)] }))
  t.strictSame(verified.roots, [])
})

await t.test('a chain is over when its shortest-lived certificate is', async t => {
  const endsMs = Math.floor(Date.now() / 1000) * 1000 + 60_000
  const short = await createIntermediate(root, 'short', undefined, endsMs)
  const below = await issueLeaf(short, spki, { identity: IDENTITY })
  t.equal(verifyChain(ask([below, short.pem, root.pem])).notAfterMs, endsMs)
})

await t.test('a cross-signed authority leads to the old root as well as to the new one', async t => {
  const next = await createRoot('next')
  const crossed = await createIntermediate(root, 'next', next.keys)
  const below = await issueLeaf(next, spki, { identity: IDENTITY })
  const verified = verifyChain(ask([below, crossed.pem], { bundle: [new X509Certificate(root.pem)] }))
  t.equal(verified.chain.match(/BEGIN CERTIFICATE/g)?.length, 2)
})

await t.test('what is wrong with an answer is named', async t => {
  const stranger = await createRoot('root') // the same name, another key
  const otherKey = await createKeyAndRequest(IDENTITY)
  const refused = async (reason: RegExp, answer: string[], more: Partial<ChainQuestion> = {}) =>
    t.throws(() => verifyChain(ask(answer, more)), { code: 'PKI', message: reason }, String(reason))

  await refused(/without a certificate/, [])
  await refused(/without a certificate/, ['hello'])
  await refused(/cannot be read/, ['-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'])
  await refused(/not for spiffe:/, [leaf, root.pem], { identity: 'spiffe://cluster.local/ns/shop/sa/other' })
  await refused(/another key/, [leaf, root.pem], { publicKey: otherKey.publicKey })
  await refused(/ended at/, [leaf, root.pem], { nowMs: Date.now() + 40 * 86_400_000 })
  await refused(/begins only at/, [leaf, root.pem], { nowMs: Date.now() - 86_400_000 / 2 })
  await refused(/any known root/, [leaf])
  await refused(/any known root/, [leaf, stranger.pem])
  const both = {
    identity: IDENTITY,
    names: [{ type: 'url', value: 'spiffe://cluster.local/ns/a/sa/b' }] as const,
  }
  await refused(/not for spiffe:/, [
    await issueLeaf(root, spki, { ...both, names: [...both.names] }),
    root.pem,
  ])
  await refused(/is a CA certificate/, [
    await issueLeaf(root, spki, { identity: IDENTITY, isCa: true }),
    root.pem,
  ])
  await refused(/at most 32/, [leaf, ...Array.from({ length: 40 }, () => root.pem)])
  await refused(/at most 262144/, ['x'.repeat(300_000)])
  const notCa = await issueLeaf(root, spki, { identity: 'spiffe://cluster.local/ns/a/sa/b' })
  await refused(/any known root/, [leaf, notCa])
})

await t.test('random answers are refused, never anything else', async () => {
  const part = fc.oneof(
    fc.string(),
    fc.constantFrom(leaf, root.pem, leaf.slice(0, 200), leaf.replace('A', 'B')),
  )
  fc.assert(
    fc.property(fc.array(part, { maxLength: 6 }), answer => {
      try {
        verifyChain(ask(answer))
      } catch (err) {
        if (!(err instanceof CulvertError) || err.code !== 'PKI') throw err
      }
    }),
  )
})
