/** What the lab says of itself, in the shapes that the demo asks for. */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { CulvertError } from '../../lib/errors.ts'
import type { Lab } from '../lab.ts'
import { logPath } from '../names.ts'

/** One line of an agent's access log. */
export type AccessLine = Readonly<Record<string, unknown>> & { readonly reason?: string }

export async function podNamed(
  lab: Lab,
  name: string,
): Promise<Awaited<ReturnType<Lab['pod']>> & { readonly ip: string; readonly ip6: string }> {
  const pod = await lab.pod(name)
  return {
    ...pod,
    ip: pod.ips.find(ip => !ip.includes(':')) ?? '',
    ip6: pod.ips.find(ip => ip.includes(':')) ?? '',
  }
}

/** The first pause between two looks, and the longest. In between, a tenth of what has been waited already. */
const PAUSE_MS = { first: 10, longest: 200 }

/** Asks until the answer is there, ever less often. Throws `TIMEOUT` with what was waited for. */
export async function until<T>(
  what: string,
  timeoutMs: number,
  ask: () => Promise<T | undefined> | T | undefined,
): Promise<T> {
  for (const startedAt = performance.now(); ;) {
    const answer = await ask()
    if (answer !== undefined) return answer
    const waitedMs = performance.now() - startedAt
    if (waitedMs > timeoutMs) throw new CulvertError('TIMEOUT', `${what}: not within ${timeoutMs} ms`)
    await sleep(Math.min(PAUSE_MS.longest, PAUSE_MS.first + waitedMs / 10))
  }
}

/** The access-log lines that a node's agents have written so far. */
export function accessLog(lab: Lab, node: string): AccessLine[] {
  return readFileSync(logPath(lab.paths, `agent-${node}`), 'utf8')
    .split('\n')
    .filter(line => line.includes('"scope":"access"') && line.endsWith('}'))
    .map(line => JSON.parse(line) as AccessLine)
}

/** The serial number of a pod's present certificate. */
export async function serialOf(
  lab: Lab,
  pod: { readonly uid: string; readonly node: string },
): Promise<string | undefined> {
  const { body } = await lab.agentAdmin(pod.node, '/certificates')
  const all = JSON.parse(body) as { uid: string; serial?: string }[]
  return all.find(({ uid }) => uid === pod.uid)?.serial
}

/** What an HTTP application of the lab answers to a request from a pod. Throws `LAB` when it does not. */
export async function httpGet(
  lab: Lab,
  from: string,
  url: string,
  args: readonly string[] = [],
): Promise<{ pod: string; client: string }> {
  const ran = await lab.exec(from, ['curl', '-sS', '-m', '5', ...args, url])
  if (ran.code !== 0)
    throw new CulvertError('LAB', `curl ${url} from ${from}: ${ran.stderr.trim()} (exit ${ran.code})`)
  return JSON.parse(ran.stdout.toString()) as { pod: string; client: string }
}
