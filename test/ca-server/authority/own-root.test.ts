import { X509Certificate } from 'node:crypto'
import { chmodSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Authority } from '../../../ca-server/authority/authority.ts'
import { ENGINE_NAMES, type EngineName } from '../../../ca-server/authority/engine-name.ts'
import { PublicKey } from '../../../ca-server/authority/x509.ts'
import { temporaryDirectory } from '../../helpers/ca-server.ts'
import { quietLog } from '../../helpers/quiet-log.ts'
import { generateKeyPairSync } from 'node:crypto'

function open(directory: string, engine: EngineName = 'node'): Promise<Authority> {
  return Authority.open({
    trustDomain: 'cluster.local',
    source: { kind: 'own-root', directory },
    engine,
    log: quietLog().log,
  })
}

async function opened(t: Test): Promise<{ directory: string; key: string; certificate: string }> {
  const directory = temporaryDirectory(t)
  await open(directory)
  return { directory, key: join(directory, 'root-key.pem'), certificate: join(directory, 'root-cert.pem') }
}

for (const engine of ENGINE_NAMES)
  await t.test(`a root is made once and kept, and signs (${engine})`, async t => {
    const directory = join(temporaryDirectory(t), 'deep', 'er')
    const first = await open(directory, engine)
    const again = await open(directory, engine)
    t.strictSame(again.roots, first.roots)
    t.equal(statSync(join(directory, 'root-key.pem')).mode & 0o777, 0o600)

    const root = new X509Certificate(first.roots[0]!)
    t.ok(root.ca && root.verify(root.publicKey))
    t.match(root.subject, /^O=cluster\.local\nCN=Culvert root [0-9a-f]{8}$/)
    const years = root.validToDate.getUTCFullYear() - root.validFromDate.getUTCFullYear()
    t.equal(years, 10)

    const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
    const key = new PublicKey(publicKey.export({ type: 'spki', format: 'der' }))
    const issued = await again.issue('spiffe://cluster.local/ns/a/sa/b', { publicKey: key, ttlMs: 60_000 })
    const leaf = new X509Certificate(issued.chain[0]!)
    t.ok(leaf.checkIssued(root) && leaf.verify(root.publicKey))
    t.ok(leaf.publicKey.equals(publicKey))
    t.equal(leaf.serialNumber.toLowerCase(), issued.serial)
  })

await t.test('serials do not repeat and are positive', async t => {
  const authority = await open(temporaryDirectory(t))
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const key = new PublicKey(publicKey.export({ type: 'spki', format: 'der' }))
  const serials = await Promise.all(
    Array.from({ length: 20 }, async () => {
      const { serial } = await authority.issue('spiffe://a/ns/b/sa/c', { publicKey: key, ttlMs: 1000 })
      return serial
    }),
  )
  t.equal(new Set(serials).size, 20)
  t.ok(serials.every(serial => /^[4-7][0-9a-f]{31}$/.test(serial)))
})

await t.test('two servers that start at once end up with one root', async t => {
  const directory = temporaryDirectory(t)
  const both = await Promise.all([open(directory), open(directory)])
  const keys = both.map(({ roots }) =>
    new X509Certificate(roots[0]!).publicKey.export({ type: 'spki', format: 'der' }),
  )
  t.strictSame(keys[0], keys[1], 'one key; the certificate of the later one stands')
})

await t.test('a key that others may read is closed to them', async t => {
  const { directory, key } = await opened(t)
  chmodSync(key, 0o644)
  await open(directory)
  t.equal(statSync(key).mode & 0o777, 0o600)
})

await t.test('a start that died between key and certificate is finished by the next', async t => {
  const { directory, certificate } = await opened(t)
  rmSync(certificate)
  const authority = await open(directory)
  t.equal(readFileSync(certificate, 'utf8'), authority.roots[0])
})

await t.test('what is there and cannot be used is an error, never replaced', async t => {
  const lost = await opened(t)
  rmSync(lost.key)
  await t.rejects(open(lost.directory), {
    code: 'PKI',
    message: /root-cert.pem is there but its key/,
    hint: /restore/,
  })

  const garbled = await opened(t)
  writeFileSync(garbled.key, 'no key')
  await t.rejects(open(garbled.directory), {
    code: 'PKI',
    message: /root-key.pem is not a private key in PEM/,
  })
  t.equal(readFileSync(garbled.key, 'utf8'), 'no key')

  const broken = await opened(t)
  writeFileSync(broken.certificate, 'no certificate')
  await t.rejects(open(broken.directory), {
    code: 'PKI',
    message: /root-cert.pem is not a certificate in PEM/,
  })

  const mixed = await opened(t)
  writeFileSync(mixed.certificate, readFileSync((await opened(t)).certificate))
  await t.rejects(open(mixed.directory), { code: 'PKI', message: /is not the key of/ })
})
