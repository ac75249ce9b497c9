/** The rules of one pod, for `agent rules --print POD`: what should stand there, why, and what it has counted. */
import { CulvertError } from '../../lib/errors.ts'
import { inspectRedirect, readCounters, rulesFor } from '../redirect/apply.ts'
import { explainRules } from '../redirect/explain.ts'
import { normalSettings } from '../redirect/settings.ts'
import type { PodLife } from './pod-life.ts'

/** Throws `INPUT` when there is no such pod. */
export async function explainPod(life: PodLife | undefined, name: string): Promise<string> {
  if (!life)
    throw new CulvertError('INPUT', `no pod '${name}' on this node`, {
      hint: 'GET /pods lists those that are',
    })
  const { pod, status, netnsFd, enrolment } = life
  const head = `pod ${pod.namespace}/${pod.name} (${pod.uid}), ${status.state}${status.detail ? `: ${status.detail}` : ''}\n`
  if (netnsFd === undefined || !enrolment) return `${head}not captured: no rules\n`
  const settings = normalSettings(enrolment)
  const [{ drift, bypasses }, counters, rules] = await Promise.all([
    inspectRedirect(netnsFd, settings),
    readCounters(netnsFd),
    rulesFor(netnsFd, settings),
  ])
  const findings = [...drift.map(what => `drifted: ${what}\n`), ...bypasses.map(what => `bypass: ${what}\n`)]
  return head + findings.join('') + explainRules(rules, counters)
}
