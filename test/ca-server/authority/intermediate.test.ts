import { createPrivateKey, generateKeyPairSync, webcrypto, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { connect } from 'node:tls'
import t, { type Test } from 'tap'
import { Authority } from '../../../ca-server/authority/authority.ts'
import { until } from '../../../lab/demo/facts.ts'
import { TestCa, temporaryDirectory } from '../../helpers/ca-server.ts'
import { makeCsr } from '../../helpers/csr.ts'
import { ADDRESS, DeltaClient } from '../../helpers/delta-client.ts'
import { ENROLLED, kubeNamespace, kubeNode, kubePod } from '../../helpers/kube-world.ts'
import { quietLog } from '../../helpers/quiet-log.ts'
import { createIntermediate, createRoot, issueLeaf, type Authority as Pki } from '../../helpers/test-pki.ts'

const CLIENT = 'spiffe://cluster.local/ns/shop/sa/client'
const WORLD = [kubeNode('node-a', '10.99.0.1'), kubeNamespace('shop', ENROLLED), kubePod('client')]

async function keyPem(keys: webcrypto.CryptoKeyPair, type: 'pkcs8' | 'sec1' = 'pkcs8'): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey))
  return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }).export({ type, format: 'pem' })
}

interface Files {
  key: string
  chain: string
  roots: string
}

function write(directory: string, { key, chain, roots }: Files) {
  writeFileSync(join(directory, 'roots.pem'), roots)
  writeFileSync(join(directory, 'key.pem'), key)
  writeFileSync(join(directory, 'chain.pem'), chain)
  return {
    kind: 'intermediate',
    keyFile: join(directory, 'key.pem'),
    chainFile: join(directory, 'chain.pem'),
    rootFile: join(directory, 'roots.pem'),
  } as const
}

function open(t: Test, files: Files): Promise<Authority> {
  const source = write(temporaryDirectory(t), files)
  return Authority.open({ trustDomain: 'cluster.local', source, engine: 'node', log: quietLog().log })
}

async function pki(): Promise<{ root: Pki; upper: Pki; lower: Pki }> {
  const root = await createRoot('company root')
  const upper = await createIntermediate(root, 'company services')
  const lower = await createIntermediate(upper, 'culvert')
  return { root, upper, lower }
}

await t.test('certificates chain through the intermediates to the company root', async t => {
  const { root, upper, lower } = await pki()
  const directory = temporaryDirectory(t)
  const key = await keyPem(lower.keys, 'sec1')
  const source = write(directory, { key, chain: lower.pem + upper.pem + root.pem, roots: root.pem })
  const env = {
    INTERMEDIATE_KEY: source.keyFile,
    INTERMEDIATE_CERT: source.chainFile,
    ROOT_CERT: source.rootFile,
  }
  const ca = await TestCa.start(t, { world: WORLD, env })
  const { certificates } = ca.clients(t, await ca.issuer.token())
  const { certChain } = await certificates.createCertificate({ csr: await makeCsr(CLIENT) })
  t.equal(certChain.length, 4, 'leaf, two intermediates, the root')
  const chain = certChain.map(pem => new X509Certificate(pem))
  for (let at = 0; at + 1 < chain.length; at++)
    t.ok(chain[at]!.checkIssued(chain[at + 1]!) && chain[at]!.verify(chain[at + 1]!.publicKey))
  t.equal(chain.at(-1)!.fingerprint256, new X509Certificate(root.pem).fingerprint256)
})

await t.test('new files take effect without a restart, and bad ones do not', async t => {
  const { root, upper, lower } = await pki()
  const directory = temporaryDirectory(t)
  const source = write(directory, {
    key: await keyPem(lower.keys),
    chain: lower.pem + upper.pem,
    roots: root.pem,
  })
  const env = {
    INTERMEDIATE_KEY: source.keyFile,
    INTERMEDIATE_CERT: source.chainFile,
    ROOT_CERT: source.rootFile,
  }
  const ca = await TestCa.start(t, { world: WORLD, env })
  const client = new DeltaClient(ca.clients(t, await ca.issuer.token()))
  t.teardown(() => client.close())
  const bundle = 'type.googleapis.com/culvert.v1.TrustBundle'
  client.subscribe(bundle)
  client.subscribe(ADDRESS)
  await client.until(() => client.held.has(bundle))
  const before = client.versions(bundle)['cluster.local']

  writeFileSync(source.keyFile, 'half a ke')
  await ca.line({ msg: 'new CA files not usable, the old ones stay' })
  const { certificates } = ca.clients(t, await ca.issuer.token())
  t.equal((await certificates.createCertificate({ csr: await makeCsr(CLIENT) })).certChain.length, 4)

  const next = await createRoot('next root')
  const under = await createIntermediate(next, 'culvert 2')
  write(directory, { key: await keyPem(under.keys), chain: under.pem, roots: next.pem + root.pem })
  await ca.line({ msg: 'intermediate replaced', roots: 2 })
  const { certChain } = await certificates.createCertificate({ csr: await makeCsr(CLIENT) })
  t.ok(new X509Certificate(certChain[0]!).checkIssued(new X509Certificate(under.pem)))
  t.equal(certChain.at(-1)!.match(/BEGIN CERTIFICATE/g)?.length, 2, 'both roots are given')
  await client.until(() => client.versions(bundle)['cluster.local'] !== before)

  await t.resolves(
    (async () => {
      for (;;) {
        const socket = connect({ port: ca.port, host: '127.0.0.1', ca: next.pem })
        const [done] = await Promise.race([
          once(socket, 'secureConnect').then(() => [true]),
          once(socket, 'error').then(() => [false]),
        ]).catch(() => [false])
        socket.destroy()
        if (done) return
      }
    })(),
    "the server's own certificate follows",
  )
  await until(
    'both roots in the file',
    5000,
    () => ca.rootPem.match(/BEGIN CERTIFICATE/g)?.length === 2 || undefined,
  )
})

await t.test('what a verifier would trip over later is named at the start', async t => {
  const { root, upper, lower } = await pki()
  const key = await keyPem(lower.keys)
  const chain = lower.pem + upper.pem
  const roots = root.pem
  const stranger = await createRoot('stranger')
  const spki = (pem: string) => new X509Certificate(pem).publicKey.export({ type: 'spki', format: 'der' })
  const leaf = await issueLeaf(upper, Uint8Array.from(spki(lower.pem)), { identity: CLIENT })
  const ended = await createIntermediate(root, 'ended', lower.keys, Date.now() - 1000)
  const ed25519 = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' })
  const encrypted = createPrivateKey(key).export({
    type: 'pkcs8',
    format: 'pem',
    cipher: 'aes-256-cbc',
    passphrase: 'x',
  })
  const cases: [what: string, files: Partial<Files>, message: RegExp][] = [
    ['no key', { key: 'x' }, /the CA key is not a private key in PEM/],
    ['a key with a passphrase', { key: encrypted }, /encrypted with a passphrase/],
    ['a key of another certificate', { key: await keyPem(upper.keys) }, /not that of the chain's first/],
    ['a key that cannot sign here', { key: ed25519 }, /not that of|cannot sign here/],
    ['no chain', { chain: '' }, /the chain file holds no certificate/],
    ['a gap in the chain', { chain: lower.pem }, /'CN=culvert' is not signed by any given root/],
    [
      'a chain out of order',
      { chain: lower.pem + root.pem + stranger.pem, roots: stranger.pem },
      /not signed by/,
    ],
    ['another root', { roots: stranger.pem }, /'CN=company services' is not signed by any given root/],
    ['no root', { roots: 'x' }, /the root file holds no certificate/],
    ['a leaf', { chain: leaf + upper.pem }, /is not a CA certificate/],
    ['an end in the past', { chain: ended.pem }, /'CN=ended' ended on/],
    ['a broken certificate', { roots: root.pem.replace(/\n[^-]{20}/, '\nAAAA') }, /cannot be read/],
  ]
  for (const [what, files, message] of cases)
    await t.rejects(open(t, { key, chain, roots, ...files }), { code: 'PKI', message }, what)
  t.ok(await open(t, { key, chain, roots }))
})

await t.test('a root may sign by itself, and no leaf outlives what signs it', async t => {
  const root = await createRoot('company root')
  const short = await createIntermediate(root, 'short', undefined, Date.now() + 3_600_000)
  const authority = await open(t, { key: await keyPem(root.keys), chain: root.pem, roots: root.pem })
  const served = await authority.issueServing({ dns: ['localhost'], ips: ['127.0.0.1', '::1'] }, 60_000)
  const leaf = new X509Certificate(served.chain)
  t.match(leaf.subjectAltName, 'DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1')
  t.ok(leaf.checkIssued(new X509Certificate(root.pem)))

  const under = await open(t, { key: await keyPem(short.keys), chain: short.pem, roots: root.pem })
  const { notAfter } = await under.issueServing({ dns: ['localhost'], ips: [] }, 86_400_000)
  t.ok(notAfter.getTime() <= new X509Certificate(short.pem).validToDate.getTime())
})
