/**
 * The images that the cluster test runs: Culvert's own, and one with the test's applications on top of the same layers.
 * Made from this machine's files and brought to the nodes where that can be done; named on the command line otherwise.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CulvertError } from '../../lib/errors.ts'
import { buildFromMachine, IMAGE_ENV } from '../../manifests/image/build.ts'
import {
  HOME,
  nodeLayer,
  packagesLayer,
  programFile,
  sourcesLayer,
  systemLayer,
} from '../../manifests/image/contents.ts'
import { FileTree } from '../../manifests/image/file-tree.ts'
import { buildImage } from '../../manifests/image/oci.ts'
import { tarOf } from '../../manifests/image/tar.ts'
import type { Cluster } from './local.ts'

export interface TestImages {
  readonly app: string
  /** Everything that is installed, with Culvert's image filled in. */
  readonly manifests: string
  /** For whoever reads along. */
  readonly told: string
}

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const MANIFESTS = join(ROOT, 'manifests/culvert.yaml')
const CULVERT = 'localhost/culvert:test'
const APPS = 'localhost/culvert-test:test'
/** What the test's pods are made of, beyond what Culvert's image holds. */
const SOURCES = ['lab', 'bench', 'cli', 'test/cluster']
const PROGRAMS = ['grep', 'nsenter', 'mktemp', 'tr', 'iperf3', 'rm']

export async function testImages(
  cluster: Cluster,
  named: { readonly image: string | undefined; readonly appImage: string | undefined },
): Promise<TestImages> {
  const { image, appImage } = named
  if (cluster.load === undefined) {
    if (image === undefined || appImage === undefined)
      throw new CulvertError('CONFIG', 'images cannot be brought to this cluster', {
        hint: 'push both somewhere, and name them with --image and --app-image',
      })
    return { app: appImage, manifests: await manifestsWith(image), told: `${image}, ${appImage}` }
  }
  const dir = await mkdtemp(join(tmpdir(), 'culvert-images-'))
  try {
    const own = buildFromMachine(ROOT, { tag: CULVERT, isCompressed: false })
    const files = [join(dir, 'culvert.tar'), join(dir, 'apps.tar')] as const
    await writeFile(files[0], own.tar)
    await writeFile(files[1], applications())
    await cluster.load(...files)
    const size = own.layers.reduce((sum, { bytes }) => sum + bytes, 0)
    return {
      app: APPS,
      manifests: await manifestsWith(CULVERT),
      told: `${CULVERT}: ${(size / 1e6).toFixed(0)} MB unpacked`,
    }
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}

function applications(): Buffer {
  const system = systemLayer()
  const node = nodeLayer(ROOT, system)
  const packages = packagesLayer(ROOT, [system, node])
  const sources = sourcesLayer(ROOT, [system, node, packages])
  const tests = new FileTree([system, node, packages, sources])
  for (const name of SOURCES)
    tests.tree(join(ROOT, name), join(HOME, name), path => !path.startsWith('results'))
  for (const name of PROGRAMS) tests.file(programFile(name))
  const { tar } = buildImage({
    tag: APPS,
    architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
    layers: Object.entries({ system, node, packages, sources, tests }).map(([name, tree]) => ({
      name,
      tar: tarOf(tree.entries()),
    })),
    env: IMAGE_ENV,
    workingDir: HOME,
    command: ['node', 'lab/app/main.ts'],
    labels: {},
  })
  return tar
}

/** The rendered manifests with another image. */
async function manifestsWith(image: string): Promise<string> {
  const text = await readFile(MANIFESTS, 'utf8')
  return text.replaceAll(/^(\s*(?:- )?image: ).*$/gm, `$1${image}`)
}
