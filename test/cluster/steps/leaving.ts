/** Out again: the annotation goes, then Culvert, and nothing of either is left. */
import { until } from '../../../lab/demo/facts.ts'
import { expect } from '../../../lab/demo/narrator.ts'
import { lifeOf, SYSTEM } from '../agents.ts'
import { holdConnection, startLoad } from '../clients.ts'
import { CLIENT, enrol, httpGet, podsOf, serverOn, url, type Context } from '../context.ts'
import { ipOf } from '../eyes.ts'
import type { Step } from './enrolment.ts'

const OURS = /CULVERT|15001|15006|15008|lookup 100/

export const leavingSteps: Step[] = [
  [
    'the annotation is taken away: rules go, open tunnels live on, no new connection fails',
    async context => {
      const { kubectl, nodes } = context
      const far = await serverOn(kubectl, nodes.far)
      const lives = (await podsOf(kubectl, 'shop')).map(lifeOf).sort()
      const held = await holdConnection(kubectl, CLIENT, ipOf(far), 7000)
      const load = await startLoad(kubectl, CLIENT, url(far), 50)
      await enrol(kubectl, 'shop', null)
      await until(
        'no captured connection',
        10_000,
        async () => !(await rules(context)).includes('15001') || undefined,
      )
      const { requests, failures } = await load.stop()
      const { how, echoed } = await held.stop()
      expect(failures.length === 0, `${failures.length} of ${requests} failed: ${failures[0]?.error}`)
      expect(how === 'closed', `an open tunnel was cut: ${how}`)
      const now = (await podsOf(kubectl, 'shop')).map(lifeOf).sort()
      expect(now.join() === lives.join(), `something was restarted:\n${now.join('\n')}`)
      return `${requests} new connections during it, 0 failed; an open tunnel echoed ${echoed} lines and lives`
    },
  ],
  [
    'Culvert is uninstalled: no rule and no object is left, traffic is as before',
    async context => {
      const { kubectl, nodes, manifests } = context
      await kubectl.ok(['delete', '--ignore-not-found', '--timeout=120s', '-f', '-'], manifests)
      await until('the namespace gone', 60_000, async () => {
        const ran = await kubectl.run(['get', 'namespace', SYSTEM])
        return ran.code !== 0 || undefined
      })
      const left = await until('no rule left', 45_000, async () => {
        const found = await rules(context)
        return OURS.test(found) ? undefined : 'none'
      })
      const far = await serverOn(kubectl, nodes.far)
      const seen = await httpGet(kubectl, CLIENT, url(far))
      return `rules left: ${left}; ${CLIENT} → ${seen.pod} as ${seen.client}`
    },
  ],
]

async function rules({ kubectl, eyes }: Context): Promise<string> {
  const all = await Promise.all((await podsOf(kubectl, 'shop')).map(async pod => await eyes.rulesOf(pod)))
  return all.join('\n')
}
