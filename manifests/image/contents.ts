/**
 * What is in the image: little enough to list. Four layers, from what changes least to what changes most, so that an
 * import after a change of code unpacks the last one only.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { CulvertError } from '../../lib/errors.ts'
import { toolPath } from '../../lib/tool-path.ts'
import { FileTree } from './file-tree.ts'
import { runtimePackages } from './packages.ts'

/** Where Culvert is in the image. */
export const HOME = '/opt/culvert'
/** The user that the ca-server's manifest asks for: nobody's in particular. */
export const CA_SERVER_UID = 65532

export const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/**
 * Beside Node: packet rules (both backends), a shell and `sleep` for the supervisor and the holders of sockets, and what a
 * person who looks around needs to see addresses, routes and sockets.
 */
const PROGRAMS = ['ip', 'ss', 'dash', 'sleep', 'cat', 'dirname', 'env', 'head', 'id', 'ls', 'tail']
const RULE_PROGRAMS = ['iptables', 'ip6tables'].flatMap(family =>
  ['', '-save', '-restore'].map(verb => [family, verb] as const),
)

/** Sources, by what is in them: no tests, no tools. */
const SOURCES = ['agent', 'ca-server', 'lib']
/** Of packages: types and maps are for whoever develops, and each is read by nobody here. */
const DEVELOPERS_ONLY =
  /\.(d\.[cm]?ts|map|md|markdown|flow|proto)$|(^|\/)(test|tests|docs|example|examples|musl_\w+)(\/|$)/

/** Programs, their libraries and the few files that the C library wants. */
export function systemLayer(): FileTree {
  const tree = new FileTree()
  tree.mergeUsr()
  for (const path of ['dev', 'etc', 'opt', 'proc', 'run', 'sys', 'var/lib/culvert-ca']) tree.directory(path)
  tree.directory('tmp', 0o1777)
  tree.directory('root', 0o700)
  tree.link('var/run', '/run')
  tree.text('etc/passwd', passwd())
  tree.text('etc/group', `root:x:0:\nnogroup:x:65534:\nculvert:x:${CA_SERVER_UID}:\n`)
  tree.text('etc/nsswitch.conf', 'passwd: files\ngroup: files\nhosts: files dns\n')
  for (const name of PROGRAMS) tree.file(programFile(name))
  tree.link('usr/bin/sh', 'dash')
  for (const [family, verb] of RULE_PROGRAMS) {
    for (const backend of ['nft', 'legacy']) tree.file(programFile(`${family}-${backend}${verb}`))
    tree.link(`usr/sbin/${family}${verb}`, `${family}-nft${verb}`)
  }
  const extensions = `/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu/xtables`
  tree.tree(extensions, extensions, name => name.endsWith('.so'))
  return tree
}

/** The Node that `npm ci` has installed. */
export function nodeLayer(root: string, below: FileTree): FileTree {
  const tree = new FileTree([below])
  tree.file(nodeBinary(root), '/usr/local/bin/node')
  return tree
}

export function nodeBinary(root: string): string {
  const path = join(root, `node_modules/node-linux-${process.arch}/bin/node`)
  if (!existsSync(path))
    throw new CulvertError('INPUT', `${path} is not there`, {
      hint: 'run npm ci, without --omit=optional',
    })
  return path
}

export function packagesLayer(root: string, below: readonly FileTree[]): FileTree {
  const tree = new FileTree(below)
  for (const { path } of runtimePackages(root))
    tree.tree(
      join(root, path),
      join(HOME, path),
      // A package inside a package is in the list itself if it is needed.
      name => !/(^|\/)node_modules(\/|$)/.test(name) && !DEVELOPERS_ONLY.test(name),
    )
  return tree
}

export function sourcesLayer(root: string, below: readonly FileTree[]): FileTree {
  const tree = new FileTree(below)
  for (const name of SOURCES)
    tree.tree(join(root, name), join(HOME, name), path => !DEVELOPERS_ONLY.test(path))
  for (const name of ['package.json', 'LICENSE'])
    tree.text(join(HOME, name), readFileSync(join(root, name), 'utf8'))
  return tree
}

function passwd(): string {
  return [
    'root:x:0:0:root:/root:/bin/sh',
    'nobody:x:65534:65534:nobody:/nonexistent:/bin/false',
    `culvert:x:${CA_SERVER_UID}:${CA_SERVER_UID}:culvert:/nonexistent:/bin/false`,
    '',
  ].join('\n')
}

export function programFile(name: string): string {
  const found = toolPath()
    .split(':')
    .map(directory => join(directory, name))
    .find(existsSync)
  if (found === undefined)
    throw new CulvertError('TOOL', `${name} is not installed`, {
      hint: 'install with: sudo apt-get install -y iptables iproute2 dash coreutils',
    })
  return found
}
