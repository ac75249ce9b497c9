/** From manifests to mutual TLS, while applications run: nothing restarts, nothing that was open is cut. */
import { until } from '../../../lab/demo/facts.ts'
import type { HoldResult } from '../../../lab/demo/hold.ts'
import type { LoadResult } from '../../../lab/demo/load.ts'
import type { Client } from '../../../lab/demo/clients.ts'
import { expect } from '../../../lab/demo/narrator.ts'
import { checkEncrypted, wireHolds } from '../../../lab/demo/wire.ts'
import { agentsByNode, lifeOf, isReady } from '../agents.ts'
import { holdConnection, startLoad } from '../clients.ts'
import {
  CLIENT,
  enrol,
  httpGet,
  loggedBy,
  OLD,
  podNamed,
  podsOf,
  secret,
  serverOn,
  url,
  type Context,
} from '../context.ts'
import { ipOf } from '../eyes.ts'
import { runOnce } from '../pods.ts'

export type Step = readonly [name: string, work: (context: Context) => Promise<string>]

interface Before {
  readonly lives: string[]
  readonly held: Client<HoldResult>[]
  readonly load: Client<LoadResult>
}
/** What went on before the mesh came; held against what is there afterwards. */
let before: Before

export const enrolmentSteps: Step[] = [
  [
    'applications run, and know nothing of a mesh',
    async ({ kubectl, nodes }) => {
      const [near, far] = [await serverOn(kubectl, nodes.near), await serverOn(kubectl, nodes.far)]
      before = {
        lives: (await podsOf(kubectl, 'shop')).map(lifeOf).sort(),
        held: [
          await holdConnection(kubectl, CLIENT, ipOf(far), 7000),
          await holdConnection(kubectl, CLIENT, ipOf(near), 7000),
          await holdConnection(kubectl, CLIENT, 'server.shop', 7000),
          await holdConnection(kubectl, OLD, ipOf(far), 7000),
        ],
        load: await startLoad(kubectl, CLIENT, url(far), 50),
      }
      return before.lives.join('\n')
    },
  ],
  [
    'Culvert is installed from its manifests',
    async ({ kubectl, install }) => {
      const startedAt = performance.now()
      await install()
      const agents = await agentsByNode(kubectl)
      return `ca-server and ${agents.size} agents ready after ${seconds(performance.now() - startedAt)}`
    },
  ],
  [
    'a namespace is annotated: its running pods are enrolled',
    async ({ kubectl }) => {
      const startedAt = performance.now()
      await enrol(kubectl, 'shop', 'enabled')
      return `all of them observed as enrolled after ${seconds(performance.now() - startedAt)}`
    },
  ],
  [
    'no pod was restarted, and nothing was cut',
    async ({ kubectl }) => {
      const lives = (await podsOf(kubectl, 'shop')).map(lifeOf).sort()
      expect(
        lives.join() === before.lives.join(),
        `before:\n${before.lives.join('\n')}\nnow:\n${lives.join('\n')}`,
      )
      const { requests, failures } = await before.load.stop()
      expect(
        failures.length === 0,
        `${failures.length} of ${requests} new connections failed: ${failures[0]?.error}`,
      )
      const ends = await Promise.all(before.held.map(async client => await client.stop()))
      const cut = ends.filter(({ how }) => how !== 'closed')
      expect(cut.length === 0, `${cut.length} of ${ends.length} open connections were cut (${cut[0]?.how})`)
      return `${requests} new connections during it, 0 failed; ${ends.length} open ones echoed ${ends.map(({ echoed }) => echoed).join(', ')} lines through it`
    },
  ],
  [
    'across nodes: the server sees the client’s own address, both ends proved who they are',
    async ({ kubectl, nodes }) => {
      const [client, far] = [await podNamed(kubectl, CLIENT), await serverOn(kubectl, nodes.far)]
      const seen = await httpGet(kubectl, CLIENT, url(far))
      expect(seen.client.startsWith(`${ipOf(client)}:`), `it saw ${seen.client}, not ${ipOf(client)}`)
      const line = await loggedBy(
        kubectl,
        nodes.far,
        'a line in the access log',
        entry => entry['src.workload'] === 'client' && entry['reason'] === 'mtls',
      )
      const ends = [line['src.identity'], line['dst.identity']].join(' → ')
      const wanted = ['client', 'server'].map(account => `spiffe://cluster.local/ns/shop/sa/${account}`)
      expect(ends === wanted.join(' → '), `identities: ${ends}`)
      return `${seen.client}: ${ends}`
    },
  ],
  [
    'between the nodes there is TLS 1.3 and nothing else',
    async ({ kubectl, eyes, nodes, image }) => {
      const [far, old] = [await serverOn(kubectl, nodes.far), await podNamed(kubectl, OLD)]
      const [hidden, open] = [secret(), secret()]
      const capture = await eyes.capture(nodes.near)
      // A pod of its own, so that its handshake is in the capture, too.
      const said = await runOnce(kubectl, 'on-the-wire', image, nodes.near, url(far, `/${hidden}`))
      await httpGet(kubectl, OLD, url(far, `/${open}`))
      const pcap = await capture.stop()
      expect(said.logs.includes(hidden), `it got: ${said.logs}`)
      expect(
        wireHolds(pcap, open),
        'the capture does not even see what is sent in the clear: it proves nothing',
      )
      const inside = [...(await podsOf(kubectl, 'shop')), said.pod].map(pod => `${ipOf(pod)}/32`)
      return `${checkEncrypted(pcap, inside, [hidden])}\n(the same capture does see a secret sent from 'old' at ${ipOf(old)}, which is not in the mesh)`
    },
  ],
  [
    'on the same node: mutual TLS, too',
    async ({ kubectl, nodes }) => {
      const near = await serverOn(kubectl, nodes.near)
      await httpGet(kubectl, CLIENT, url(near, '/near'))
      const line = await loggedBy(
        kubectl,
        nodes.near,
        'its line',
        entry =>
          entry['direction'] === 'inbound' &&
          entry['src.workload'] === 'client' &&
          entry['reason'] === 'mtls' &&
          String(entry['dst.addr']).startsWith(ipOf(near)),
      )
      return `${String(line['src.addr'])} → ${String(line['dst.addr'])}: ${String(line['reason'])}`
    },
  ],
  [
    'a Service and a headless Service are spread over tunnels',
    async ({ kubectl }) => {
      const told: string[] = []
      for (const target of ['http://server.shop/', 'http://server-headless.shop:8080/']) {
        const load = await startLoad(kubectl, CLIENT, target, 100, 1)
        const { pods, failures, requests } = await load.result
        expect(failures.length === 0, `${target}: ${failures.length} failed: ${failures[0]?.error}`)
        const spread = Object.keys(pods).length
        // The headless one is its client's to choose from: a resolver may well answer in the same order.
        expect(
          spread === 2 || target.includes('headless'),
          `${target}: all went to ${Object.keys(pods).join()}`,
        )
        told.push(`${target}: ${requests} requests over ${spread} pods`)
      }
      return told.join('\n')
    },
  ],
  [
    'a pod outside the mesh still gets through, and is reported',
    async ({ kubectl, nodes }) => {
      const far = await serverOn(kubectl, nodes.far)
      await httpGet(kubectl, OLD, url(far, '/outside'))
      const line = await loggedBy(
        kubectl,
        nodes.far,
        'the report',
        entry => entry['src.workload'] === 'old' && entry['direction'] === 'inbound',
      )
      expect(line['reason'] === 'peer-not-enrolled', `it was reported as ${String(line['reason'])}`)
      return 'plaintext, reason peer-not-enrolled'
    },
  ],
  [
    'probes go on: every pod is ready',
    async ({ kubectl }) => {
      await until(
        'all ready',
        10_000,
        async () => (await podsOf(kubectl, 'shop')).every(isReady) || undefined,
      )
      return ''
    },
  ],
]

export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`
}
