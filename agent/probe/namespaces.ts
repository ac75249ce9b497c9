/** Every network namespace of the node that is somebody's, each once: those with a name, and those of processes. */
import { closeSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { netnsInode, openNetns } from '../sys/netns.ts'

/** Where container runtimes mount them. */
const NAMED = '/var/run/netns'

export interface FoundNetns {
  /** Where it was found first. */
  readonly path: string
  readonly inode: bigint
}

/** All but our own and the node's. One that vanishes meanwhile is left out. */
export function podNamespaces(): FoundNetns[] {
  const seen = new Map<bigint, string>()
  const not = new Set([inodeOf('/proc/self/ns/net'), inodeOf('/proc/1/ns/net')])
  for (const path of [...namedPaths(), ...processPaths()]) {
    const inode = inodeOf(path)
    if (inode !== undefined && !not.has(inode) && !seen.has(inode)) seen.set(inode, path)
  }
  return [...seen].map(([inode, path]) => ({ path, inode }))
}

/** Runs `work` with a descriptor of the namespace; undefined when it has gone. */
export async function withNetns<T>(
  { path }: FoundNetns,
  work: (fd: number) => Promise<T>,
): Promise<T | undefined> {
  let fd: number
  try {
    fd = openNetns(path)
  } catch {
    return undefined
  }
  try {
    return await work(fd)
  } finally {
    closeSync(fd)
  }
}

function namedPaths(): string[] {
  try {
    return readdirSync(NAMED).map(name => join(NAMED, name))
  } catch {
    return []
  }
}

function processPaths(): string[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(pid => `/proc/${pid}/ns/net`)
}

function inodeOf(path: string): bigint | undefined {
  try {
    return netnsInode(path)
  } catch {
    return undefined
  }
}
