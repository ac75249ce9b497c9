import { X509Certificate } from 'node:crypto'
import { Code, ConnectError } from '@connectrpc/connect'
import t from 'tap'
import { clientsOver, TestCa, TokenIssuer } from '../helpers/ca-server.ts'
import { makeCsr } from '../helpers/csr.ts'
import { ENROLLED, kubeNamespace, kubeNode, kubePod } from '../helpers/kube-world.ts'

const CLIENT = 'spiffe://cluster.local/ns/shop/sa/client'
const WORLD = [
  kubeNode('node-a', '10.99.0.1'),
  kubeNode('node-b', '10.99.0.2'),
  kubeNamespace('shop', ENROLLED),
  kubeNamespace('legacy'),
  kubePod('client'),
  kubePod('server', { node: 'node-b', ips: ['10.98.2.10'] }),
  kubePod('old', { namespace: 'legacy', ips: ['10.98.1.11'] }),
]

await t.test('a trusted agent gets the certificate of an enrolled pod of its node', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const { certificates } = ca.clients(t, await ca.issuer.token())
  const before = Math.floor(Date.now() / 1000) * 1000
  const { certChain } = await certificates.createCertificate({
    csr: await makeCsr(CLIENT),
    validityDuration: 3600n,
    metadata: { ImpersonatedIdentity: CLIENT, PodUID: 'uid-client' },
  })

  t.equal(certChain.length, 2, 'the leaf and the root')
  t.equal(certChain[1], ca.rootPem)
  const leaf = new X509Certificate(certChain[0]!)
  const root = new X509Certificate(certChain[1]!)
  t.ok(leaf.verify(root.publicKey) && leaf.checkIssued(root))
  t.equal(leaf.subjectAltName, `URI:${CLIENT}`)
  t.equal(leaf.subject, undefined, 'the subject is empty')
  t.match(leaf.toLegacyObject().ext_key_usage, ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'])
  t.equal(leaf.ca, false)
  const lifeMs = leaf.validToDate.getTime() - before
  t.ok(lifeMs >= 3_599_000 && lifeMs <= 3_605_000, 'ends an hour from now')
  t.ok(leaf.validFromDate.getTime() <= before - 119_000, 'began two minutes ago')

  const line = await ca.line({ msg: 'certificate issued' })
  t.match(line, {
    identity: CLIENT,
    pod: 'shop/client',
    pod_uid: 'uid-client',
    node: 'node-a',
    serial: leaf.serialNumber.toLowerCase(),
    fingerprint_sha256: leaf.fingerprint256.replaceAll(':', '').toLowerCase(),
  })
  t.match(await ca.metrics(), 'citadel_server_success_cert_issuance_count 1')
})

await t.test('without impersonation the identity is the one that the request names', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const { certificates } = ca.clients(t, await ca.issuer.token({ serviceAccount: 'ztunnel' }))
  const { certChain } = await certificates.createCertificate({ csr: await makeCsr(CLIENT) })
  t.equal(new X509Certificate(certChain[0]!).subjectAltName, `URI:${CLIENT}`)
})

await t.test('a plain JSON call over HTTP/1.1 works as well', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const { certificates } = clientsOver(ca.transport(t, await ca.issuer.token(), 'json'))
  const { certChain } = await certificates.createCertificate({ csr: await makeCsr(CLIENT) })
  t.equal(certChain.length, 2)
})

await t.test('no certificate lives longer than the longest lifetime', async t => {
  const ca = await TestCa.start(t, { world: WORLD, env: { DEFAULT_TTL: '10s', MAX_TTL: '20s' } })
  const { certificates } = ca.clients(t, await ca.issuer.token())
  const lifeSeconds = async (validityDuration: bigint) => {
    const startedMs = Date.now()
    const { certChain } = await certificates.createCertificate({
      csr: await makeCsr(CLIENT),
      validityDuration,
    })
    const leaf = new X509Certificate(certChain[0]!)
    return (leaf.validToDate.getTime() - startedMs) / 1000
  }
  for (const [asked, given] of [
    [0n, 10],
    [-5n, 10],
    [15n, 15],
    [9_223_372_036_854_775_807n, 20],
  ] as const)
    // Certificate times have whole seconds.
    t.ok(Math.abs((await lifeSeconds(asked)) - given) <= 1, `${given} s for ${asked}`)
})

await t.test(
  'what may not be had is refused without a reason to the caller, and with one in the log',
  async t => {
    const ca = await TestCa.start(t, { world: WORLD })
    const ask = async (token: string, identity: string, metadata: Record<string, string | number>) => {
      const { certificates } = ca.clients(t, token)
      const csr = await makeCsr(identity)
      return certificates.createCertificate({ csr, metadata })
    }
    const good = await ca.issuer.token()
    const other = 'spiffe://cluster.local/ns/shop/sa/server'
    const old = 'spiffe://cluster.local/ns/legacy/sa/old'
    const cases: [
      reason: string,
      token: string,
      identity: string,
      metadata: Record<string, string | number>,
    ][] = [
      ['pod-other-node', good, other, { PodUID: 'uid-server' }],
      ['pod-unknown', good, other, {}],
      ['pod-other-identity', good, other, { PodUID: 'uid-client' }],
      ['pod-not-enrolled', good, old, { PodUID: 'uid-old' }],
      ['trust-domain', good, 'spiffe://elsewhere.org/ns/shop/sa/client', {}],
      ['identity-malformed', good, 'spiffe://cluster.local/client', {}],
      ['csr-names', good, CLIENT, { ImpersonatedIdentity: other }],
      ['metadata', good, CLIENT, { PodUID: 7 }],
      ['account-not-trusted', await ca.issuer.token({ serviceAccount: 'default' }), CLIENT, {}],
      ['token-without-node', await ca.issuer.token({ node: undefined }), CLIENT, {}],
    ]
    for (const [reason, token, identity, metadata] of cases) {
      await t.rejects(
        ask(token, identity, metadata),
        { code: Code.PermissionDenied, rawMessage: 'not permitted' },
        reason,
      )
      const line = await ca.line({ msg: 'call refused', reason })
      t.type(line['err'], 'string')
    }
  },
)

await t.test('a token that proves nothing is refused before the body is read', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const csr = await makeCsr(CLIENT)
  const stranger = await TokenIssuer.create()
  const cases: [reason: string, token: string][] = [
    ['token-expired', await ca.issuer.token({ expiresIn: -60 })],
    ['token-audience', await ca.issuer.token({ audience: 'istio-ca' })],
    ['token-issuer', await ca.issuer.token({ issuer: 'https://elsewhere' })],
    ['token-signature', await stranger.token()],
    ['token-claims', await ca.issuer.token({ subject: 'system:serviceaccount:culvert-system:default' })],
    ['token-malformed', 'abc'],
  ]
  for (const [reason, token] of cases) {
    const { certificates } = ca.clients(t, token)
    await t.rejects(
      certificates.createCertificate({ csr }),
      { code: Code.Unauthenticated, rawMessage: 'not authenticated' },
      reason,
    )
    await ca.line({ msg: 'call refused', reason })
  }
  t.match(await ca.metrics(), 'citadel_server_authentication_failure_count 6')
})

await t.test('a pod that the world hears of a moment later still gets its certificate', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const { certificates } = ca.clients(t, await ca.issuer.token())
  const call = certificates.createCertificate({
    csr: await makeCsr(CLIENT),
    metadata: { ImpersonatedIdentity: CLIENT, PodUID: 'uid-client-2' },
  })
  ca.setWorld([...WORLD, kubePod('client-2', { serviceAccount: 'client', ips: ['10.98.1.12'] })])
  t.equal((await call).certChain.length, 2)
})

await t.test('a node that asks too fast is held back, and only that node', async t => {
  const ca = await TestCa.start(t, { world: WORLD, env: { ISSUES_PER_SECOND: '1', ISSUES_BURST: '2' } })
  const csr = await makeCsr(CLIENT)
  const a = ca.clients(t, await ca.issuer.token()).certificates
  const b = ca.clients(t, await ca.issuer.token({ node: 'node-b' })).certificates
  await a.createCertificate({ csr })
  await a.createCertificate({ csr })
  await t.rejects(a.createCertificate({ csr }), { code: Code.ResourceExhausted })
  const server = await makeCsr('spiffe://cluster.local/ns/shop/sa/server')
  t.equal((await b.createCertificate({ csr: server })).certChain.length, 2)
})

await t.test('an oversize request is refused and the server goes on', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const { certificates } = ca.clients(t, await ca.issuer.token())
  const huge = await certificates
    .createCertificate({ csr: 'x'.repeat(2 * 1024 * 1024) })
    .catch((err: unknown) => ConnectError.from(err))
  t.match(huge, { code: Code.ResourceExhausted })
  await t.rejects(certificates.createCertificate({ csr: 'x'.repeat(9000) }), { code: Code.PermissionDenied })
  await ca.line({ reason: 'csr-too-large' })
  t.equal((await certificates.createCertificate({ csr: await makeCsr(CLIENT) })).certChain.length, 2)
})

await t.test('nothing is issued before the world is known', async t => {
  const ca = await TestCa.start(t)
  const { certificates, reports } = ca.clients(t, await ca.issuer.token())
  const csr = await makeCsr(CLIENT)
  await t.rejects(certificates.createCertificate({ csr }), { code: Code.Unavailable })
  await t.rejects(reports.report({ instance: 'a' }), { code: Code.Unavailable })
  const ready = await fetch(`http://127.0.0.1:${ca.metricsPort}/healthz/ready`)
  t.equal(ready.status, 503)
  t.match(await ready.text(), /waiting for: the first usable .*cluster\.yaml/)

  ca.setWorld(WORLD)
  await ca.line({ msg: 'world file loaded' })
  t.equal((await certificates.createCertificate({ csr })).certChain.length, 2)
})

await t.test('keys and tokens are in no line of the log', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const token = await ca.issuer.token()
  const { certificates } = ca.clients(t, token)
  await certificates.createCertificate({ csr: await makeCsr(CLIENT) })
  await t.rejects(ca.clients(t, `${token}x`).certificates.createCertificate({ csr: 'x' }))
  const text = JSON.stringify(ca.lines)
  t.notMatch(text, token.split('.')[2]!)
  t.notMatch(text, 'PRIVATE KEY')
})
