/**
 * What a lab's things are called and where they lie: its network namespaces, its run directory and the files
 * in there. Names come from lab files and command lines, so whatever becomes part of a path is checked here.
 */
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { CulvertError } from '../lib/errors.ts'

// No dash: namespaces are found again by the prefix `culvert-<lab>-`, and a lab `a` must not find those of `a-b`.
const LAB_NAME = /^[a-z0-9_]{1,16}$/

/** Names in a lab's run directory and among its namespaces that no node may have. */
const RESERVED = new Set(['fabric', 'cp', 'ca', 'logs', 'ca-server'])

/** Throws `LAB` unless the name can be a lab's. */
export function checkLabName(name: string): void {
  if (!LAB_NAME.test(name))
    throw new CulvertError('LAB', `'${name}' cannot be a lab's name`, {
      hint: 'use 1 to 16 lower-case letters, digits and underscores',
    })
}

/** Throws `LAB` unless the name can be a node's. */
export function checkNodeName(name: string): void {
  // A unix socket's path has room for 107 bytes, of which the node's name is only a part.
  if (RESERVED.has(name) || name.length > 32)
    throw new CulvertError('LAB', `a lab's node cannot be called '${name}'`, {
      hint: `use at most 32 characters, and none of ${[...RESERVED].join(', ')}`,
    })
}

/** The directory that `ip netns` keeps names in. */
export const NETNS_DIR = '/run/netns'

export function netnsPrefix(lab: string): string {
  return `culvert-${lab}-`
}

/** `fabric`, `cp` and a node's name give the names of their namespaces. */
export function netnsName(lab: string, part: string): string {
  return `${netnsPrefix(lab)}${part}`
}

export function netnsPath(name: string): string {
  return join(NETNS_DIR, name)
}

/**
 * The name of a new pod's namespace: `culvert-<lab>-<pod>`, and with the Kubernetes namespace in front of the
 * pod's name when the short one is taken by another pod or by a node. Throws `LAB` when both are.
 */
export function podNetnsName(
  lab: string,
  namespace: string,
  pod: string,
  taken: (name: string) => boolean,
): string {
  const names = [netnsName(lab, pod), netnsName(lab, `${namespace}-${pod}`)]
  // The kernel's limit for a file name.
  const name = names.find(name => !RESERVED.has(name.slice(netnsPrefix(lab).length)) && !taken(name))
  if (name === undefined || name.length > 255)
    throw new CulvertError('LAB', `no network namespace can be named after pod ${namespace}/${pod}`, {
      hint: `${names.join(' and ')} are in use; give the pod another name`,
    })
  return name
}

export interface LabPaths {
  /** The lab's run directory; everything below lies in it. */
  readonly run: string
  readonly state: string
  readonly control: string
  readonly cluster: string
  readonly root: string
  readonly jwks: string
  readonly ca: string
  readonly logs: string
}

export interface NodePaths {
  readonly dir: string
  readonly token: string
  readonly pods: string
  readonly agent: string
  /** A link to the socket of the agent that serves now. */
  readonly adminSocket: string
}

/**
 * The directory that holds the run directories of all labs of this user. Not below /run for anyone but root:
 * a lab without root covers /run with a private file system.
 */
export function labsDir(isRoot: boolean = process.getuid?.() === 0): string {
  if (isRoot) return '/run/culvert-lab'
  const tmp = tmpdir().startsWith('/run/') ? '/tmp' : tmpdir()
  return join(tmp, `culvert-lab-${userInfo().uid}`)
}

/** Where a lab's files are. `dir` is for a process whose own user says something else: root in a user namespace. */
export function labPaths(lab: string, dir: string = labsDir()): LabPaths {
  checkLabName(lab)
  const run = join(dir, lab)
  return {
    run,
    state: join(run, 'state.json'),
    control: join(run, 'control.sock'),
    cluster: join(run, 'cluster.yaml'),
    root: join(run, 'root.pem'),
    jwks: join(run, 'jwks.json'),
    ca: join(run, 'ca'),
    logs: join(run, 'logs'),
  }
}

export function nodePaths(paths: LabPaths, node: string): NodePaths {
  const dir = join(paths.run, node)
  return {
    dir,
    token: join(dir, 'token'),
    pods: join(dir, 'pods.json'),
    agent: join(dir, 'agent'),
    adminSocket: join(dir, 'admin.sock'),
  }
}

export function logPath(paths: LabPaths, part: string): string {
  return join(paths.logs, `${part}.log`)
}
