import t, { type Test } from 'tap'
import { holdConnection, startLoad } from '../../lab/demo/clients.ts'
import { httpGet, podNamed, until, type AccessLine } from '../../lab/demo/facts.ts'
import type { Ran } from '../../lab/run.ts'
import { idlePod, labFor } from '../helpers/lab.ts'
import { endedConnections, metricsOf, valueOf, wasReset, Watch } from '../helpers/lab-facts.ts'

const NODES = ['node-a', 'node-b'] as const
const REQUIRE = 'culvert.dev/mtls-outbound: require'

const lab = await labFor(t, { name: `m${process.pid}` })
await lab.addPods(
  idlePod('careful', 'shop', 'client', 'node-a').replace('annotations: {', `annotations: { ${REQUIRE},`),
)
const server = await podNamed(lab, 'server')
const server2 = await podNamed(lab, 'server-2')

await t.test('the ca-server is away, and comes back', async t => {
  const held = await holdConnection(lab, 'client', server.ip, 7000)
  const load = await startLoad(lab, 'client', `http://${server.ip}:8080/`, 20, 600)
  await until('connections', 20_000, () => endedConnections(lab, 'node-a').length > 3 || undefined)
  await lab.stopCaServer()
  for (const node of NODES) await discoveryIs(node, 0)

  const adding = lab.addPods(idlePod('newcomer', 'shop', 'client', 'node-a'))
  adding.catch(() => undefined) // awaited below
  await until(
    'capture of the new pod',
    20_000,
    async () => /captured/.test((await stateOf('newcomer')) ?? '') || undefined,
  )
  const refused = get('newcomer', server.ip)

  await t.test('those who know each other reach each other, also for the first time', async t => {
    t.match(await httpGet(lab, 'server-2', `http://${server.ip}:8080/`), { pod: 'server' })
    t.match(await httpGet(lab, 'careful', `http://${server2.ip}:8080/`), { pod: 'server-2' })
    for (const node of NODES) {
      const ready = await lab.execOnNode(node, ['curl', '-sS', 'http://127.0.0.1:15021/healthz/ready'])
      t.equal(ready.stdout.toString(), 'ready\n')
    }
  })

  await t.test(
    'a pod that was added meanwhile is unknown: reported, and refused to those who require mTLS',
    async t => {
      await lab.addPods(
        idlePod('stranger', 'legacy', 'old', 'node-b').replace(
          'name: idle, command: [sleep, infinity]',
          'name: app, image: culvert.dev/lab-app',
        ),
      )
      const { ip } = await podNamed(lab, 'stranger')
      const log = new Watch(lab, 'node-a')
      const [plain, none] = await Promise.all([get('client', ip), get('careful', ip)])
      t.equal(plain.code, 0, plain.stderr)
      t.ok(wasReset(none))
      const to = `${ip}:8080`
      t.match(await until('its line', 20_000, () => log.lines({ from: 'client', to })[0]), {
        reason: 'peer-unknown',
      })
      t.match(await log.next({ from: 'careful', to }), { reason: 'strict', error: /not known to discovery/ })
    },
  )

  await t.test(
    'a new pod sends nothing in the clear, and is refused when it gets no certificate',
    async t => {
      t.match(await stateOf('newcomer'), /pending: captured/)
      t.equal(
        (await get('newcomer', (await podNamed(lab, 'old')).ip)).code,
        0,
        'what needs no certificate works',
      )
      t.ok(wasReset(await refused))
      const line = await until('its line', 20_000, () =>
        endedConnections(lab, 'node-a').find(isFrom('newcomer', 'server')),
      )
      t.match(line, { reason: 'tls', error: /no certificate for .*sa\/client yet/ })
    },
  )

  await lab.startCaServer()
  const startedAt = performance.now()
  await t.test('when it is back all is well within seconds', async t => {
    await adding
    for (const pod of ['client', 'careful', 'server', 'server-2', 'newcomer'])
      await lab.waitForPod(pod, ['enrolled'])
    for (const node of NODES) await discoveryIs(node, 1)
    t.comment(`after ${Math.round(performance.now() - startedAt)} ms`)
    t.match(await httpGet(lab, 'newcomer', `http://${server.ip}:8080/`), { pod: 'server' })
    const stranger = await podNamed(lab, 'stranger')
    const log = new Watch(lab, 'node-a')
    await get('client', stranger.ip)
    t.match(await log.next({ from: 'client', to: `${stranger.ip}:8080` }), { reason: 'peer-not-enrolled' })
  })

  const { requests, failures } = await load.stop()
  t.strictSame(failures, [], `${requests} new connections`)
  t.match(await held.stop(), { how: 'closed' })
  nothingInTheClear(t)
})

await t.test(
  'agents are killed while the ca-server is away: nothing passes in the clear, and nobody is lost',
  async t => {
    await lab.stopCaServer()
    for (const node of NODES) {
      await lab.killAgent(node)
      await until(`the next agent of ${node}`, 20_000, async () => {
        const agent = (await lab.status()).nodes.find(({ name }) => name === node)?.agent
        return agent?.answers || undefined
      })
      const ready = await lab.execOnNode(node, ['curl', '-sS', 'http://127.0.0.1:15021/healthz/ready'])
      t.match(ready.stdout.toString(), /not ready, waiting for: .*discovery/)
    }
    const waiting = [get('client', server.ip), get('server-2', server.ip), get('old', server.ip)]
    for (const pod of ['client', 'server', 'newcomer']) {
      const saved = (await lab.exec(pod, ['iptables-save', '-t', 'nat'])).stdout.toString()
      t.match(saved, /REDIRECT --to-ports 15001/)
      t.match(saved, /REDIRECT --to-ports 15006/)
      const sockets = (await lab.exec(pod, ['cat', '/proc/net/tcp', '/proc/net/tcp6'])).stdout.toString()
      for (const port of [15001, 15006, 15008])
        t.ok(sockets.includes(`:${port.toString(16).toUpperCase()} `), `somebody keeps ${port} of ${pod}`)
    }
    t.equal(
      await Promise.race([...waiting, metricsOf(lab, 'node-a').then(() => 'none')]),
      'none',
      'they wait',
    )
    await lab.startCaServer()
    for (const pod of ['client', 'careful', 'server', 'server-2', 'newcomer'])
      await lab.waitForPod(pod, ['enrolled'])
    for (const { code, stderr } of await Promise.all(waiting)) t.equal(code, 0, stderr)
    // What ends is told to the main thread of the agent a little later.
    const carried = 'culvert_connections_total{direction="outbound",reason="mtls"}'
    await until('both to be counted', 20_000, async () =>
      valueOf(await metricsOf(lab, 'node-a'), carried) >= 2 ? true : undefined,
    )
    nothingInTheClear(t)
  },
)

/** No connection between enrolled pods ended as anything but mTLS, or refused. */
function nothingInTheClear(t: Test): void {
  const enrolled = new Set<unknown>(['client', 'careful', 'server', 'server-2', 'newcomer'])
  const plain = NODES.flatMap(node => endedConnections(lab, node)).filter(
    line =>
      enrolled.has(line['src.workload']) &&
      enrolled.has(line['dst.workload']) &&
      line.reason !== 'mtls' &&
      line.reason !== 'tls',
  )
  t.strictSame(plain, [], 'no connection between enrolled pods was in the clear')
}

function isFrom(from: string, to: string) {
  return (line: AccessLine) => line['src.workload'] === from && line['dst.workload'] === to
}

async function discoveryIs(node: string, connected: 0 | 1): Promise<void> {
  await until(`${node}: discovery ${connected ? '' : 'not '}connected`, 20_000, async () =>
    valueOf(await metricsOf(lab, node), 'culvert_discovery_connected') === connected ? true : undefined,
  )
}

/** What the agent says of a pod: `state: detail`. */
async function stateOf(name: string): Promise<string | undefined> {
  const pod = (await lab.status()).pods.find(each => each.name === name)
  return pod && `${pod.mesh}: ${pod.meshDetail}`
}

function get(pod: string, ip: string): Promise<Ran> {
  return lab.exec(pod, ['curl', '-sS', '-m', '14', '-o', '/dev/null', `http://${ip}:8080/`])
}
