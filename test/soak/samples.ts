/** What the lab's processes use, read every so often from /proc and from what the agents say of themselves. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import type { Lab } from '../../lab/lab.ts'
import { netnsPrefix, NETNS_DIR } from '../../lab/names.ts'
import { namespaceInode, processesIn, boundNamespaceInode } from '../../lab/processes.ts'
import { metricsText } from './deeds.ts'

/** One process at one time. */
export interface Sample {
  /** `agent-node-a`, `ca-server`, … */
  readonly part: string
  readonly pid: number
  /** Since the soak began. */
  readonly atMs: number
  readonly rssBytes: number
  readonly descriptors: number
  readonly threads: number
}

/** What is there when nothing is going on. */
export interface AtRest {
  readonly parts: Readonly<Record<string, Rest>>
  /** Processes in the lab's namespaces. */
  readonly processes: number
  readonly namespaces: number
}

export interface Rest {
  readonly pid: number
  /** But for the sockets of kept sessions, whose number is nobody's business. */
  readonly descriptors: number
  readonly threads: number
  readonly connections: number
  /** By kind: `socket`, `pipe`, `anon_inode:[eventpoll]`, a path. */
  readonly kinds: Readonly<Record<string, number>>
}

/** The processes that serve now. */
export async function partsOf(lab: Lab): Promise<Map<string, number>> {
  const { caServer, nodes } = await lab.status()
  const parts = new Map<string, number>()
  for (const { name, agent } of nodes) if (agent?.pid !== undefined) parts.set(`agent-${name}`, agent.pid)
  if (caServer.pid !== undefined) parts.set('ca-server', caServer.pid)
  return parts
}

export async function sample(lab: Lab, startedAtMs: number): Promise<Sample[]> {
  const samples: Sample[] = []
  for (const [part, pid] of await partsOf(lab)) {
    const facts = processFacts(pid)
    if (facts) samples.push({ part, pid, atMs: Date.now() - startedAtMs, ...facts })
  }
  return samples
}

/** Undefined when the process is gone. */
function processFacts(pid: number): { rssBytes: number; descriptors: number; threads: number } | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    const number = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? 0)
    return {
      rssBytes: number('VmRSS') * 1024,
      threads: number('Threads'),
      descriptors: readdirSync(`/proc/${pid}/fd`).length,
    }
  } catch {
    return undefined
  }
}

/** To be asked when no traffic is under way. */
export async function atRest(lab: Lab): Promise<AtRest> {
  const parts: Record<string, Rest> = {}
  for (const [part, pid] of await partsOf(lab)) {
    const facts = processFacts(pid)
    if (!facts) continue
    const node = /^agent-(.*)$/.exec(part)?.[1]
    const open = node === undefined ? '' : await metricsText(lab, node)
    const connections = Number(/^culvert_connections_open (\d+)$/m.exec(open)?.[1] ?? 0)
    const { threads, descriptors } = facts
    parts[part] = { pid, threads, descriptors, connections, kinds: kindsOf(pid) }
  }
  const names = readdirSync(NETNS_DIR).filter(name => name.startsWith(netnsPrefix(lab.name)))
  const inodes = new Set(names.flatMap(name => boundNamespaceInode(`${NETNS_DIR}/${name}`) ?? []))
  inodes.delete(namespaceInode('self', 'net') ?? -1)
  return { parts, processes: processesIn('net', inodes).length, namespaces: names.length }
}

function kindsOf(pid: number): Record<string, number> {
  const kinds: Record<string, number> = {}
  for (const fd of readdirSync(`/proc/${pid}/fd`))
    try {
      const kind = readlinkSync(`/proc/${pid}/fd/${fd}`).replace(/:\[\d+\]$/, '')
      kinds[kind] = (kinds[kind] ?? 0) + 1
    } catch {
      // closed meanwhile
    }
  return kinds
}
