/** The image put together: layers, what is started in it, and how it is called. */
import { VERSION } from '../../lib/version.ts'
import { CACHE_ENV, compileCacheLayer } from './compile-cache.ts'
import { HOME, nodeBinary, nodeLayer, packagesLayer, PATH, sourcesLayer, systemLayer } from './contents.ts'
import { buildImage, type BuiltImage } from './oci.ts'
import { tarOf } from './tar.ts'

/** What a container starts unless its manifest says otherwise; both programs are in the one image. */
const COMMAND = ['node', 'agent/main.ts', '--help']

/** Also in the Dockerfile: ENV. Types are stripped, which Node still calls an experiment. */
export const IMAGE_ENV: readonly string[] = [
  `PATH=${PATH}`,
  ...CACHE_ENV,
  'NODE_OPTIONS=--disable-warning=ExperimentalWarning',
]

/** From this machine's programs, the installed packages and the sources at `root`. Throws `INPUT` or `TOOL`. */
export function buildFromMachine(
  root: string,
  { tag, isCompressed }: { readonly tag: string; readonly isCompressed: boolean },
): BuiltImage {
  const system = systemLayer()
  const node = nodeLayer(root, system)
  const packages = packagesLayer(root, [system, node])
  const sources = sourcesLayer(root, [system, node, packages])
  const cache = compileCacheLayer(nodeBinary(root), [system, node, packages, sources])
  const layers = Object.entries({ system, node, packages, sources, 'compile cache': cache })
  return buildImage({
    tag,
    architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
    layers: layers.map(([name, tree]) => ({ name, tar: tarOf(tree.entries()) })),
    isCompressed,
    env: IMAGE_ENV,
    workingDir: HOME,
    command: COMMAND,
    labels: {
      'org.opencontainers.image.title': 'culvert',
      'org.opencontainers.image.version': VERSION,
      'org.opencontainers.image.licenses': 'Apache-2.0',
    },
  })
}
