import t from 'tap'
import { collectGarbage } from '../../../lib/garbage.ts'
import { openssl } from '../../../agent/sys/openssl.ts'
import { opensslReason, TlsContext } from '../../../agent/sys/tls-context.ts'
import { material, ours, root, securedPair, theirs } from '../../helpers/tls-ends.ts'
import { createIntermediate, createRoot } from '../../helpers/test-pki.ts'

t.afterEach(() => {
  t.equal(openssl.ERR_get_error(), 0, 'nothing is left of what failed')
})

await t.test('key and certificate of one workload, under a root, make a context', async () => {
  t.ok(ours.pointer > 0)
})

for (const [what, change] of [
  ['a key of somebody else', async () => ({ ...theirs, key: (await material('other')).key })],
  ['no key', async () => ({ ...theirs, key: '' })],
  ['a key that is none', async () => ({ ...theirs, key: theirs.chain })],
  ['no certificate', async () => ({ ...theirs, chain: '' })],
  ['half a certificate', async () => ({ ...theirs, chain: theirs.chain.slice(0, 200) })],
  [
    'a whole certificate and half of another',
    async () => ({ ...theirs, chain: theirs.chain + theirs.chain.slice(0, 200) }),
  ],
  ['no roots', async () => ({ ...theirs, roots: '' })],
  ['roots that are none', async () => ({ ...theirs, roots: 'trust me' })],
] as const)
  await t.test(`${what} is refused with a reason`, async t => {
    const given = await change()
    const err = t.throws(() => new TlsContext(given), { code: 'PKI', message: /cannot be used for TLS/ })
    const { message } = (err as Error).cause as Error
    t.ok(message.length > 5)
    t.notMatch(message, 'no reason given')
    t.notMatch(message, 'PRIVATE')
  })

await t.test('several roots are trusted, each for its own', async t => {
  const newer = await createRoot('Newer root')
  const roots = root.pem + newer.pem
  const old = new TlsContext({ ...(await material('old')), roots })
  const fresh = new TlsContext({ ...(await material('fresh', {}, newer)), roots })
  const { client, server } = await securedPair(t, old, fresh)
  t.match(client.peerCertificate()?.issuer, 'Newer root')
  t.match(server.peerCertificate()?.issuer, 'Root of the mesh')
})

await t.test('intermediates are sent along', async t => {
  const first = await createIntermediate(root, 'First')
  const second = await createIntermediate(first, 'Second')
  const leaf = await material('below', {}, second)
  const context = new TlsContext({ ...leaf, chain: leaf.chain + second.pem + first.pem })
  const { client, server } = await securedPair(t, context, ours)
  t.match(server.peerCertificate()?.issuer, 'Second')
  t.match(client.peerCertificate()?.subjectAltName, 'sa/ours')
})

await t.test(
  'a context lives as long as a connection needs it, and no longer than somebody has it',
  async t => {
    let context: TlsContext | undefined = new TlsContext(await material('short-lived'))
    const reference = new WeakRef(context)
    const { client, server, atServer } = await securedPair(t, context, ours)
    context = undefined
    for (let tries = 0; tries < 20 && reference.deref(); tries++) {
      await new Promise(resolve => setImmediate(resolve))
      t.ok(await collectGarbage())
    }
    t.equal(reference.deref(), undefined)
    await new Promise(resolve => setImmediate(resolve)) // finalization
    client.write(Buffer.from('still'), 5)
    await atServer.until(() => atServer.text === 'still')
    t.match(server.peerCertificate()?.subjectAltName, 'short-lived')
    client.destroy()
    server.destroy()
  },
)

await t.test('without an error there is no reason', async t => {
  t.equal(opensslReason(), 'no reason given')
})
