import { createHash } from 'node:crypto'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { run } from '../../lab/run.ts'
import { VERSION } from '../../lib/version.ts'
import { buildFromMachine, IMAGE_ENV } from '../../manifests/image/build.ts'
import { HOME, nodeLayer, packagesLayer, sourcesLayer, systemLayer } from '../../manifests/image/contents.ts'
import { runtimePackages } from '../../manifests/image/packages.ts'
import { sbomOf } from '../../manifests/image/sbom.ts'
import { tarOf } from '../../manifests/image/tar.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

const sha256 = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`

/** Digests of the layers of the image that the tests make. */
const made: string[] = []

await t.test('archives are read by the system’s tar, long names and all', async t => {
  const long = `${'directory/'.repeat(20)}file`
  const archive = tarOf([
    { kind: 'directory', path: 'bin', mode: 0o755 },
    { kind: 'file', path: 'bin/run', mode: 0o755, bytes: Buffer.from('#!/bin/sh\n') },
    { kind: 'link', path: 'sh', target: 'bin/run' },
    { kind: 'file', path: long, mode: 0o644, bytes: Buffer.alloc(513, 'x') },
    { kind: 'link', path: 'ü', target: long },
  ])
  const dir = t.testdir({ out: {} })
  writeFileSync(join(dir, 'a.tar'), archive)
  const listed = await run(['tar', '-tvf', join(dir, 'a.tar'), '--numeric-owner', '--quoting-style=literal'])
  t.equal(listed.code, 0)
  const lines = listed.stdout.toString().trim().split('\n')
  t.match(lines[0], /^drwxr-xr-x 0\/0 .* bin\/$/)
  t.match(lines[1], /^-rwxr-xr-x 0\/0 +10 .* bin\/run$/)
  t.match(lines[2], /^lrwxrwxrwx .* sh -> bin\/run$/)
  t.ok(lines[3]!.endsWith(long) && lines[4]!.endsWith(`ü -> ${long}`))
  t.equal((await run(['tar', '-xf', join(dir, 'a.tar'), '-C', join(dir, 'out')])).code, 0)
  t.equal(readFileSync(join(dir, 'out', long)).length, 513)
  t.throws(() => tarOf([{ kind: 'directory', path: '/etc', mode: 0o755 }]), { code: 'INPUT' })
})

await t.test('the image has what its programs run on, and nothing that only developers need', async t => {
  const { tar, layers, digest } = buildFromMachine(ROOT, {
    tag: 'localhost/culvert:test',
    isCompressed: false,
  })
  const dir = t.testdir({ image: {}, root: {} })
  const image = join(dir, 'image')
  const root = join(dir, 'root')
  writeFileSync(join(dir, 'image.tar'), tar)
  t.equal((await run(['tar', '-xf', join(dir, 'image.tar'), '-C', image])).code, 0)
  rmSync(join(dir, 'image.tar'))

  await t.test('it is an OCI layout, and every blob is what its name says', async t => {
    const json = (path: string) =>
      JSON.parse(readFileSync(join(image, path), 'utf8')) as Record<string, never>
    const blob = (name: string) => readFileSync(join(image, name.replace('sha256:', 'blobs/sha256/')))
    t.match(json('oci-layout'), { imageLayoutVersion: '1.0.0' })
    const index = json('index.json') as unknown as { manifests: { digest: string; annotations: object }[] }
    t.match(index.manifests, [
      { digest, annotations: { 'io.containerd.image.name': 'localhost/culvert:test' } },
    ])
    const manifest = JSON.parse(blob(digest).toString()) as {
      config: { digest: string }
      layers: { digest: string; size: number }[]
    }
    const config = JSON.parse(blob(manifest.config.digest).toString()) as {
      config: object
      rootfs: { diff_ids: string[] }
    }
    t.match(config.config, { WorkingDir: HOME, Labels: { 'org.opencontainers.image.version': VERSION } })
    t.equal(manifest.layers.length, layers.length)
    for (const [at, layer] of manifest.layers.entries()) {
      const bytes = blob(layer.digest)
      t.equal(bytes.length, layer.size)
      t.equal(sha256(bytes), layer.digest)
      t.equal(config.rootfs.diff_ids[at], layer.digest, 'not compressed: the two are one')
      made.push(layer.digest)
      await run(['tar', '-xf', join(image, layer.digest.replace('sha256:', 'blobs/sha256/')), '-C', root])
    }
    t.match(json('manifest.json'), [{ RepoTags: ['localhost/culvert:test'] }], 'and what older Dockers read')
  })

  await t.test('its programs run with what is in it alone', async t => {
    // Set inside: the test runner gives its own options to every Node that is started below it.
    const env = IMAGE_ENV.map(pair => `export '${pair}'`).join('; ')
    const inside = (line: string) =>
      run(['chroot', root, '/usr/bin/sh', '-c', `${env}; cd ${HOME} && ${line}`])
    for (const main of ['agent/main.ts', 'ca-server/main.ts'])
      t.match(await inside(`node ${main} --version`), { code: 0, stdout: Buffer.from(`${VERSION}\n`) }, main)
    t.match(await inside('node agent/probe/main.ts --help'), { code: 0 })
    for (const program of ['iptables-nft', 'ip6tables-legacy', 'iptables-restore'])
      t.match(await inside(`${program} --version`), { code: 0 }, program)
    t.match(await inside('ip -V && ss -V && sleep 0 && id && ls && cat package.json'), { code: 0 })
  })

  await t.test('neither a second Node nor what is for developers is in it', async t => {
    const { stdout } = await run(['find', join(root, HOME), '-printf', '%P\\n'])
    const paths = stdout.toString().split('\n')
    t.ok(paths.includes('agent/main.ts') && paths.includes('ca-server/main.ts'))
    t.strictSame(
      paths.filter(path =>
        /^(test|bench|lab|cli)(\/|$)|\.d\.ts$|node_modules\/(typescript|tap|node-linux|@kubernetes)/.test(
          path,
        ),
      ),
      [],
    )
  })
})

await t.test('what does not change makes the same layer again', t => {
  const system = systemLayer()
  const node = nodeLayer(ROOT, system)
  const packages = packagesLayer(ROOT, [system, node])
  const sources = sourcesLayer(ROOT, [system, node, packages])
  t.strictSame(
    [system, packages, sources].map(tree => sha256(tarOf(tree.entries()))),
    [made[0], made[2], made[3]],
  )
  t.end()
})

await t.test('the bill of materials names what is in the image, the same each time', async t => {
  const sbom = sbomOf(ROOT) as { components: { purl: string; version: string }[]; serialNumber: string }
  t.strictSame(sbomOf(ROOT), sbom)
  t.match(sbom.serialNumber, /^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}$/)
  const purls = sbom.components.map(({ purl }) => purl)
  for (const { name, version } of runtimePackages(ROOT))
    t.ok(purls.includes(`pkg:npm/${name.replace('@', '%40')}@${version}`), name)
  t.ok(purls.some(purl => purl.startsWith('pkg:generic/node@26.')))
  t.ok(purls.some(purl => purl.startsWith('pkg:deb/debian/iptables@')))
  t.notOk(purls.some(purl => /typescript|client-node|node-linux/.test(purl)))
})
