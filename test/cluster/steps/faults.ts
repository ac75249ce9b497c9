/** What breaks, and what is replaced, under load. */
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../../lab/demo/facts.ts'
import { expect } from '../../../lab/demo/narrator.ts'
import { wireHolds } from '../../../lab/demo/wire.ts'
import { admin, agentOn, agentsByNode, lifeOf, observed, SYSTEM } from '../agents.ts'
import { holdConnection, startLoad } from '../clients.ts'
import { CLIENT, httpGet, podNamed, podsOf, secret, serverOn, url, type Context } from '../context.ts'
import { ipOf, nodeOf } from '../eyes.ts'
import { ended, firstActPod, runOnce } from '../pods.ts'
import { seconds, type Step } from './enrolment.ts'

const RATE = 50
const A_WHILE_MS = 1000

export const faultSteps: Step[] = [
  [
    'a new pod whose first act is a connection is never seen in plaintext',
    async ({ kubectl, eyes, nodes, image }) => {
      const far = await serverOn(kubectl, nodes.far)
      const word = secret()
      const capture = await eyes.capture(nodes.near)
      const { logs: said } = await runOnce(kubectl, 'first-act', image, nodes.near, url(far, `/${word}`))
      const pcap = await capture.stop()
      expect(said.includes('"ok":true'), `it got: ${said}`)
      expect(!wireHolds(pcap, word), 'its request was on the wire in the clear')
      return said.trim().slice(0, 200)
    },
  ],
  [
    'the agents are rolled out anew under load: no new connection fails',
    async ({ kubectl, nodes }) => {
      const far = await serverOn(kubectl, nodes.far)
      const near = await serverOn(kubectl, nodes.near)
      const loads = [
        await startLoad(kubectl, CLIENT, url(far), RATE),
        await startLoad(kubectl, CLIENT, url(near), RATE),
        await startLoad(kubectl, CLIENT, 'http://server.shop/', RATE),
      ]
      await sleep(A_WHILE_MS)
      const before = await agentsByNode(kubectl)
      await kubectl.ok(['-n', SYSTEM, 'rollout', 'restart', 'ds/culvert-agent'])
      await kubectl.ok(['-n', SYSTEM, 'rollout', 'status', 'ds/culvert-agent', '--timeout=180s'])
      await sleep(A_WHILE_MS)
      const results = await Promise.all(loads.map(async load => await load.stop()))
      const failures = results.flatMap(result => result.failures)
      const requests = results.reduce((sum, result) => sum + result.requests, 0)
      expect(
        failures.length === 0,
        `${failures.length} of ${requests} failed: ${failures[0]?.error} (${JSON.stringify(failures.slice(0, 5))})`,
      )
      const after = await agentsByNode(kubectl)
      for (const [node, { metadata }] of after)
        expect(metadata.uid !== before.get(node)?.metadata.uid, `the agent on ${node} is the old one`)
      return `${requests} new connections, 0 failed, slowest ${Math.max(...results.map(result => result.slowestMs))} ms`
    },
  ],
  [
    'an agent is killed (-9), twice within five seconds: open connections are reset, no new one fails',
    async context => await killedTwice(context),
  ],
  [
    'redirection rules are flushed in a pod: put back at once',
    async ({ kubectl, eyes }) => {
      const client = await podNamed(kubectl, CLIENT)
      const startedAt = performance.now()
      await eyes.inPod(client, ['iptables', '-t', 'nat', '-F'])
      const flushedMs = performance.now() - startedAt
      await until('the rules', 5000, async () => (await eyes.rulesOf(client)).includes('15001') || undefined)
      const tookMs = performance.now() - startedAt
      await until(
        'observed as enrolled',
        5000,
        async () => observed(await podNamed(kubectl, CLIENT)) === 'enrolled' || undefined,
      )
      return `there again within ${Math.round(tookMs - flushedMs)} ms of the flush, looking included`
    },
  ],
  [
    'the ca-server is away: what is known goes on; it comes back: a new pod is served',
    async ({ kubectl, nodes, image }) => {
      const far = await serverOn(kubectl, nodes.far)
      const { replicas = 2 } = (await kubectl.get('deploy', '-n', SYSTEM, 'culvert-ca')).spec
      const load = await startLoad(kubectl, CLIENT, url(far), RATE)
      await kubectl.ok(['-n', SYSTEM, 'scale', 'deploy/culvert-ca', '--replicas=0'])
      await until('no ca-server', 30_000, async () => {
        const pods = await kubectl.list('pods', '-n', SYSTEM, '-l', 'app.kubernetes.io/name=culvert-ca')
        return pods.length === 0 || undefined
      })
      await sleep(2 * A_WHILE_MS)
      await kubectl.apply(firstActPod('while-away', image, nodes.near, url(far)))
      await sleep(2 * A_WHILE_MS)
      const { requests, failures } = await load.stop()
      expect(failures.length === 0, `${failures.length} of ${requests} failed: ${failures[0]?.error}`)
      await kubectl.ok(['-n', SYSTEM, 'scale', 'deploy/culvert-ca', `--replicas=${replicas}`])
      await kubectl.ok(['-n', SYSTEM, 'rollout', 'status', 'deploy/culvert-ca', '--timeout=120s'])
      const { logs: said } = await ended(kubectl, 'while-away')
      await httpGet(kubectl, CLIENT, url(far))
      return `${requests} new connections while it was away, 0 failed; the pod that began meanwhile: ${said.trim().slice(0, 120)}`
    },
  ],
]

async function killedTwice({ kubectl, eyes, nodes }: Context): Promise<string> {
  const far = await serverOn(kubectl, nodes.far)
  const held = await holdConnection(kubectl, CLIENT, ipOf(far), 7000)
  const load = await startLoad(kubectl, CLIENT, url(far), RATE)
  const agent = await podNamed(kubectl, await agentOn(kubectl, nodes.near))
  const kills: number[] = []
  for (let kill = 0; kill < 2; kill++) {
    await sleep(A_WHILE_MS)
    // The agent's own process, not the container's first one.
    const killed = await eyes.onNode(nodeOf(agent), [
      'sh',
      '-c',
      `for p in /proc/[0-9]*; do grep -qz 'agent/main.ts' $p/cmdline 2>/dev/null && kill -9 \${p#/proc/} && exit 0; done; exit 1`,
    ])
    expect(killed.code === 0, 'there was no agent to kill')
    kills.push(Date.now())
    await until('the next agent', 10_000, async () => {
      const answer = await admin(kubectl, nodes.near, '/pods').catch(() => undefined)
      const pods = answer as readonly { readonly name: string; readonly state: string }[] | undefined
      return pods?.some(({ name, state }) => name === 'client' && state === 'enrolled') || undefined
    })
  }
  await sleep(A_WHILE_MS)
  const { requests, failures, slowestMs } = await load.stop()
  const { how } = await held.result
  // What was open when the agent died is reset like everything else that was.
  const wasOpen = ({ startedAtMs, failedAtMs }: (typeof failures)[number]) =>
    kills.some(at => startedAtMs <= at && Math.abs(failedAtMs - at) < 1000)
  const failed = failures.filter(failure => !wasOpen(failure))
  expect(how === 'reset', `an open connection ended as '${how}', not as a reset`)
  expect(failed.length === 0, `${failed.length} of ${requests} new connections failed: ${failed[0]?.error}`)
  const now = await podNamed(kubectl, `${SYSTEM}/${agent.metadata.name}`)
  expect(lifeOf(now) === lifeOf(agent), `the container was restarted, too: ${lifeOf(now)}`)
  expect((await podsOf(kubectl, 'shop')).length > 0, 'the pods have gone')
  return `between kills ${seconds(kills[1]! - kills[0]!)}; ${requests} new connections, 0 failed, slowest ${slowestMs} ms; the open one was reset`
}
