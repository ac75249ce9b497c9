/** Strict: plaintext is refused wherever it comes from, and the kubelet's probes are not plaintext to be refused. */
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../../lab/demo/facts.ts'
import { expect } from '../../../lab/demo/narrator.ts'
import { isReady, lifeOf } from '../agents.ts'
import {
  CLIENT,
  httpGet,
  loggedBy,
  OLD,
  podsOf,
  serverOn,
  setMtls,
  tryGet,
  url,
  type Context,
} from '../context.ts'
import { ipOf } from '../eyes.ts'
import type { Step } from './enrolment.ts'

/** Of each kind, one probe a second: long enough for a failing one to take readiness or the container away. */
const PROBE_ROUNDS_MS = 6000

export const strictSteps: Step[] = [
  [
    'strict refuses a pod outside the mesh with a reset, and lets the mesh in',
    async ({ kubectl, nodes }) => {
      const far = await serverOn(kubectl, nodes.far)
      await setMtls(kubectl, 'shop', 'strict')
      const startedAt = performance.now()
      const error = await until('the refusal', 10_000, async () => {
        const got = await tryGet(kubectl, OLD, url(far))
        return got.ok ? undefined : got.error
      })
      expect(error === 'ECONNRESET', `it failed with ${error}`)
      await httpGet(kubectl, CLIENT, url(far))
      return `refused ${Math.round(performance.now() - startedAt)} ms after the annotation, ${error}`
    },
  ],
  [
    'strict refuses a process in the node’s own namespace',
    async ({ kubectl, eyes, nodes }) => {
      const near = await serverOn(kubectl, nodes.near)
      const told: string[] = []
      // One port that no probe names, and ports that are the kubelet's to call: see ARCHITECTURE.md for the latter.
      const ran = await eyes.onNode(nodes.near, ['node', 'test/cluster/get.ts', `http://${ipOf(near)}:7002/`])
      const said = JSON.parse(ran.stdout.toString()) as { ok: boolean; error?: string }
      expect(!said.ok && said.error === 'ECONNRESET', `a process of the node got: ${ran.stdout.toString()}`)
      const line = await loggedBy(
        kubectl,
        nodes.near,
        'the refusal in the log',
        entry => entry['reason'] === 'strict' && String(entry['dst.addr']).endsWith(':7002'),
      )
      told.push(`from ${String(line['src.addr'])}: ${String(line['reason'])}`)
      return told.join('\n')
    },
  ],
  ['HTTP, TCP and exec probes stay green under strict', async context => await probesStayGreen(context)],
  [
    'permissive again',
    async ({ kubectl, nodes }) => {
      const far = await serverOn(kubectl, nodes.far)
      await setMtls(kubectl, 'shop', null)
      await until(
        'plaintext let in',
        10_000,
        async () => (await tryGet(kubectl, OLD, url(far))).ok || undefined,
      )
      return ''
    },
  ],
]

async function probesStayGreen({ kubectl }: Context): Promise<string> {
  const before = (await podsOf(kubectl, 'shop')).map(lifeOf).sort()
  for (const deadline = performance.now() + PROBE_ROUNDS_MS; performance.now() < deadline; await sleep(250)) {
    const unready = (await podsOf(kubectl, 'shop')).filter(pod => !isReady(pod))
    expect(unready.length === 0, `${unready.map(pod => pod.metadata.name).join()} not ready`)
  }
  const after = (await podsOf(kubectl, 'shop')).map(lifeOf).sort()
  expect(before.join() === after.join(), `something was restarted:\n${after.join('\n')}`)
  return `for ${PROBE_ROUNDS_MS / 1000} s with a probe of each kind every second: ready, no restarts`
}
