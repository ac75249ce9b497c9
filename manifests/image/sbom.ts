/**
 * What the image is made of, as a CycloneDX 1.6 document: npm packages, Node, and the Debian packages of programs and
 * libraries. The same image gives the same document: it has no time in it, and its serial number is made of its contents.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { VERSION } from '../../lib/version.ts'
import { nodeBinary, systemLayer } from './contents.ts'
import { runtimePackages } from './packages.ts'

interface Component {
  readonly type: 'library' | 'application'
  readonly name: string
  readonly version: string
  readonly purl: string
  readonly licenses?: readonly { readonly expression: string }[]
  readonly hashes?: readonly { readonly alg: string; readonly content: string }[]
}

export function sbomOf(root: string): Record<string, unknown> {
  const components = [...npmComponents(root), nodeComponent(root), ...debianComponents()].sort((a, b) =>
    a.purl < b.purl ? -1 : 1,
  )
  const digest = createHash('sha256').update(JSON.stringify(components)).digest('hex')
  return {
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    serialNumber: `urn:uuid:${uuidOf(digest)}`,
    version: 1,
    metadata: {
      component: {
        type: 'container',
        name: 'culvert',
        version: VERSION,
        'bom-ref': `culvert@${VERSION}`,
        licenses: [{ expression: 'Apache-2.0' }],
      },
    },
    components: components.map(component => ({ 'bom-ref': component.purl, ...component })),
    dependencies: [{ ref: `culvert@${VERSION}`, dependsOn: components.map(({ purl }) => purl) }],
  }
}

function npmComponents(root: string): Component[] {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { integrity?: string; license?: string }>
  }
  return runtimePackages(root).map(({ name, version, path }) => {
    const { integrity = '', license } = lock.packages[path] ?? {}
    const [algorithm, base64] = integrity.split('-')
    return {
      type: 'library',
      name,
      version,
      purl: `pkg:npm/${name.replace('@', '%40')}@${version}`,
      ...(license !== undefined && { licenses: [{ expression: license }] }),
      ...(algorithm === 'sha512' &&
        base64 !== undefined && {
          hashes: [{ alg: 'SHA-512', content: Buffer.from(base64, 'base64').toString('hex') }],
        }),
    }
  })
}

function nodeComponent(root: string): Component {
  const node = nodeBinary(root)
  const version = spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout.trim().slice(1)
  const content = createHash('sha256').update(readFileSync(node)).digest('hex')
  return {
    type: 'application',
    name: 'node',
    version,
    purl: `pkg:generic/node@${version}`,
    licenses: [{ expression: 'MIT' }],
    hashes: [{ alg: 'SHA-256', content }],
  }
}

/** The packages that files of the system layer belong to. On a machine without dpkg there are none to name. */
function debianComponents(): Component[] {
  const files = systemLayer()
    .entries()
    .filter(({ kind }) => kind === 'file')
    // The package may have put it where the link of the root directory leads away from.
    .flatMap(({ path }) => [`/${path}`, `/${path.replace(/^usr\//, '')}`])
  const { stdout } = spawnSync('dpkg-query', ['-S', ...files], { encoding: 'utf8' })
  if (typeof stdout !== 'string') return []
  const names = new Set(stdout.split('\n').flatMap(line => /^([^:\s]+)(?::\w+)?: \//.exec(line)?.[1] ?? []))
  if (names.size === 0) return []
  const format = '${Package} ${Version} ${Architecture}\\n'
  const { stdout: list } = spawnSync('dpkg-query', ['-W', '-f', format, ...[...names].sort()], {
    encoding: 'utf8',
  })
  return list
    .split('\n')
    .filter(line => line !== '')
    .map(line => {
      const [name = '', version = '', architecture = ''] = line.split(' ')
      const encoded = encodeURIComponent(version)
      return {
        type: 'library',
        name,
        version,
        purl: `pkg:deb/debian/${name}@${encoded}?arch=${architecture}`,
      }
    })
}

/** 128 bits of a digest in the form of a UUID of version 8 (RFC 9562: made as one likes). */
function uuidOf(digest: string): string {
  const hex = `${digest.slice(0, 12)}8${digest.slice(13, 16)}a${digest.slice(17, 32)}`
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}
