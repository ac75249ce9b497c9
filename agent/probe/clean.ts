/**
 * Takes away what agents have left on a node once none runs there: in the network namespaces of pods rules, policy routing
 * and listening sockets with the processes that hold them, and the record of those. Connections that are carried end.
 */
import { closeSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { errorText } from '../../lib/errors.ts'
import type { Finding, NodeReport } from '../../lib/finding.ts'
import { HolderFile } from '../pods/holder-file.ts'
import { findHolder, isHolderAlive, killHolder, type Holder } from '../pods/holder.ts'
import { readCounters, removeRedirect } from '../redirect/apply.ts'
import { openNetns } from '../sys/netns.ts'
import { podNamespaces } from './namespaces.ts'

const RUN_DIR = '/run/culvert'

export async function cleanNode(node: string): Promise<NodeReport> {
  const findings: Finding[] = []
  const cleaned = { rules: 0, holders: 0 }
  for (const { path } of podNamespaces())
    try {
      await cleanNamespace(path, cleaned)
    } catch (err) {
      findings.push({
        id: 'rules',
        state: 'fail',
        text: `${path}: ${errorText(err)}`,
        hint: 'what is left there goes with the pod: delete it',
      })
    }
  cleaned.holders += await endRecordedHolders()
  for (const name of entriesOf(RUN_DIR)) rmSync(join(RUN_DIR, name), { recursive: true, force: true })
  findings.push({
    id: 'clean',
    state: 'ok',
    text: `${cleaned.rules} pods had rules, ${cleaned.holders} sockets were held`,
  })
  return { node, findings }
}

async function cleanNamespace(path: string, cleaned: { rules: number; holders: number }): Promise<void> {
  let fd: number
  try {
    fd = openNetns(path)
  } catch {
    return // gone meanwhile, and all that was in it
  }
  try {
    if (Object.keys(await readCounters(fd)).length > 0) cleaned.rules++
    await removeRedirect(fd)
    for (let holder; (holder = findHolder(fd)); cleaned.holders++) await end(holder)
  } finally {
    closeSync(fd)
  }
}

/** Those of pods that have gone: a holder keeps the namespace, which then has no other way to it. */
async function endRecordedHolders(): Promise<number> {
  const alive = Object.values(new HolderFile(RUN_DIR).read()).filter(isHolderAlive)
  for (const record of alive) await end(record)
  return alive.length
}

/** Resolves when it is gone. */
async function end(holder: Holder): Promise<void> {
  killHolder(holder)
  while (isHolderAlive(holder)) await sleep(5)
}

function entriesOf(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch {
    return []
  }
}
