import t from 'tap'
import { holdConnection, startLoad } from '../../lab/demo/clients.ts'
import { httpGet, podNamed, until } from '../../lab/demo/facts.ts'
import type { Ran } from '../../lab/run.ts'
import { labFor } from '../helpers/lab.ts'
import {
  countedWords,
  endedConnections,
  loggedWords,
  metricsOf,
  openFiles,
  valueOf,
  wasReset,
  Watch,
} from '../helpers/lab-facts.ts'

const lab = await labFor(t, { name: `m${process.pid}` })
const client = await podNamed(lab, 'client')
const server = await podNamed(lab, 'server')
const old = await podNamed(lab, 'old')
const nodeB = (await lab.status()).nodes.find(({ name }) => name === server.node)!
const atClient = new Watch(lab, client.node)
const atServer = new Watch(lab, server.node)

/** Outside the cluster: an address that no node and no pod range has. */
const OUTSIDE = '203.0.113.9'
await lab.execOnNode('cp', ['ip', 'address', 'add', `${OUTSIDE}/32`, 'dev', 'lo'])
await lab.execOnNode(client.node, ['ip', 'route', 'add', `${OUTSIDE}/32`, 'via', '10.99.0.2'])

await t.test('permissive lets plaintext in, under its word', async t => {
  t.equal((await curl('old', `http://${server.ip}:8080/`)).code, 0)
  const line = await atServer.next({ direction: 'inbound', from: 'old', to: `${server.ip}:8080` })
  t.equal(line.reason, 'peer-not-enrolled')
})

await t.test('strict refuses plaintext with a reset and lets the mesh in', async t => {
  const refused = valueOf(await metricsOf(lab, server.node), counted('inbound', 'strict'))
  await annotate('pod/server', { 'culvert.dev/mtls': 'strict' }, 'server', /strict\/inbound/)
  for (const [from, to] of [
    [old.ip, `${server.ip}:8080`],
    [old.ip6, `[${server.ip6}]:8080`],
  ] as const) {
    t.ok(wasReset(await curl('old', `http://${to}/`)))
    const line = await atServer.next({ direction: 'inbound', from: 'old', to })
    t.match(line, { reason: 'strict', level: 'error', error: /plaintext from pod legacy\/old/ })
    t.ok(String(line['src.addr']).includes(from))
  }
  t.equal(valueOf(await metricsOf(lab, server.node), counted('inbound', 'strict')), refused + 2)
  t.match(await httpGet(lab, 'client', `http://${server.ip}:8080/`), { pod: 'server' })
  const line = await atServer.next({ direction: 'inbound', from: 'client', to: `${server.ip}:8080` })
  t.equal(line.reason, 'mtls')
})

await t.test('plaintext that was open before strict is listed, and cut when that is asked for', async t => {
  const open = async () => {
    const { body } = await lab.agentAdmin(server.node, '/plaintext')
    const pods = JSON.parse(body) as { pod: string; connections: { port: number; kind: string }[] }[]
    return pods.find(({ pod }) => pod === 'shop/server')?.connections ?? []
  }
  await lab.annotate('pod/server', { 'culvert.dev/mesh': 'disabled', 'culvert.dev/mtls': null })
  await lab.waitForPod('server', ['not-enrolled'])
  const older = await holdConnection(lab, 'old', server.ip, 7000)
  await lab.annotate('pod/server', { 'culvert.dev/mesh': null })
  await lab.waitForPod('server', ['enrolled'])
  const carried = await holdConnection(lab, 'old', server.ip6, 7000)
  const tunnelled = await holdConnection(lab, 'client', server.ip, 7000)
  t.strictSame(await open(), [], 'nothing is listed while the pod is not strict')

  await annotate('pod/server', { 'culvert.dev/mtls': 'strict' }, 'server', /strict\/inbound/)
  const listed = await until('both listed', 5000, async () => {
    const found = await open()
    return found.length === 2 ? found : undefined
  })
  t.match(
    listed.toSorted((a, b) => (a.kind < b.kind ? -1 : 1)),
    [
      { kind: 'carried', reason: 'peer-not-enrolled', port: 7000 },
      { kind: 'pre-enrolment', port: 7000 },
    ],
  )
  await lab.annotate('pod/server', { 'culvert.dev/mtls': null })
  await until('nothing listed', 5000, async () => (await open()).length === 0 || undefined)
  await lab.annotate('pod/server', { 'culvert.dev/mtls': 'strict', 'culvert.dev/mtls-cut-open': 'true' })
  for (const cut of [older, carried]) t.match(await cut.result, { how: 'reset' })
  t.match(await tunnelled.stop(), { how: 'closed' }, 'tunnels go on')
  await annotate('pod/server', { 'culvert.dev/mtls-cut-open': null }, 'server', /strict\/inbound/)
})

await t.test('of its node, a strict pod takes the kubelet’s probes and nothing else', async t => {
  t.equal((await curlFrom(server.node, `http://${server.ip}:8080/`)).code, 0, 'the probe is answered')
  const probe = await atServer.next({ direction: 'inbound', from: nodeIp(server.node) })
  t.equal(probe.reason, 'kubelet-probe')

  t.ok(wasReset(await curlFrom(server.node, `http://${server.ip}:7002/`)))
  const other = await atServer.next({ direction: 'inbound', from: nodeIp(server.node) })
  t.match(other, { reason: 'strict', 'dst.addr': `${server.ip}:7002` })

  t.ok(wasReset(await curlFrom(client.node, `http://${server.ip}:8080/`)))
  const foreign = await atServer.next({ direction: 'inbound', from: nodeIp(client.node) })
  t.match(foreign, { reason: 'strict' }, 'the probe port is not open to other nodes')
})

await t.test('a strict pod stays closed when its rules are flushed, again and again', async t => {
  for (let round = 0; round < 3; round++) {
    await lab.exec('server', ['sh', '-c', 'iptables -w -t nat -F; iptables -w -F; iptables -w -t nat -X'])
    const tries = await Promise.all(Array.from({ length: 4 }, () => curl('old', `http://${server.ip}:8080/`)))
    t.strictSame(
      tries.filter(({ code }) => code === 0).map(({ stdout }) => stdout.toString()),
      [],
    )
  }
  await until('the mesh gets in again', 20_000, async () => {
    const ran = await curl('client', `http://${server.ip}:8080/`)
    return ran.code === 0 || undefined
  })
  await annotate('pod/server', { 'culvert.dev/mtls': null }, 'server', /strict\/inbound/, false)
})

await t.test('require: nothing of the cluster is reached in the clear, what is outside is', async t => {
  const node = `${nodeIp(server.node)}:15020`
  t.equal((await curl('client', `http://${old.ip}:8080/`)).code, 0)
  t.equal((await atClient.next({ from: 'client', to: `${old.ip}:8080` })).reason, 'peer-not-enrolled')
  t.equal((await curl('client', `http://${node}/metrics`)).code, 0)
  t.equal((await atClient.next({ from: 'client', to: node })).reason, 'peer-host-network')

  await annotate('pod/client', { 'culvert.dev/mtls-outbound': 'require' }, 'client', /require\/outbound/)
  t.ok(wasReset(await curl('client', `http://${old.ip}:8080/`)))
  t.match(await atClient.next({ from: 'client', to: `${old.ip}:8080` }), {
    reason: 'strict',
    'dst.workload': 'old',
    error: /pod legacy\/old is not enrolled/,
  })
  t.ok(wasReset(await curl('client', `http://${node}/metrics`)))
  t.match(await atClient.next({ from: 'client', to: node }), { reason: 'strict', error: /is a node/ })
  const nobody = client.ip.replace(/\d+$/, '250')
  t.ok(wasReset(await curl('client', `http://${nobody}:8080/`)))
  t.match(await atClient.next({ from: 'client', to: `${nobody}:8080` }), {
    reason: 'strict',
    error: /not known to discovery/,
  })
  t.match(await httpGet(lab, 'client', `http://${server.ip}:8080/`), { pod: 'server' })
  t.equal((await atClient.next({ from: 'client', to: `${server.ip}:8080` })).reason, 'mtls')
  t.equal((await curl('client', `http://${OUTSIDE}:15014/metrics`)).code, 0, 'outside of the cluster')
  t.equal((await atClient.next({ from: 'client', to: `${OUTSIDE}:15014` })).reason, 'peer-external')

  await lab.exec('client', ['sh', '-c', 'iptables -w -t nat -F; iptables -w -F'])
  const tries = await Promise.all(Array.from({ length: 4 }, () => curl('client', `http://${old.ip}:8080/`)))
  t.notOk(
    tries.some(({ code }) => code === 0),
    'also while its rules are flushed',
  )
  await annotate('pod/client', { 'culvert.dev/mtls-outbound': null }, 'client', /require\/outbound/, false)
  await until('everything as it was', 20_000, async () => {
    const ran = await curl('client', `http://${old.ip}:8080/`)
    return ran.code === 0 || undefined
  })
})

await t.test('what is excluded passes uncaptured, counted by the rule that lets it', async t => {
  const metrics = `${nodeIp(server.node)}:15020`
  await annotate(
    'pod/server',
    { 'culvert.dev/mtls': 'strict', 'culvert.dev/exclude-inbound-ports': '7000' },
    'server',
    /excluded-port\/inbound\/7000/,
  )
  await annotate(
    'pod/client',
    {
      'culvert.dev/mtls-outbound': 'require',
      'culvert.dev/exclude-outbound-ports': '8080, 15020',
      'culvert.dev/exclude-outbound-cidrs': `${old.ip6}/128,${OUTSIDE}/32`,
    },
    'client',
    /excluded-cidr\/outbound/,
  )
  atServer.forget()
  atClient.forget()
  const held = [
    await holdConnection(lab, 'old', server.ip, 7000),
    await holdConnection(lab, 'client', old.ip6, 7000),
  ]
  t.equal((await curl('client', `http://${metrics}/metrics`)).code, 0, 'an outbound port')
  t.equal((await curl('client', `http://${OUTSIDE}:15014/`)).code, 0, 'an outbound range')
  for (const each of held) t.match(await each.stop(), { how: 'closed' })

  t.match(await countersOf('server'), { 'excluded-port/inbound/7000': 1 })
  t.match(await countersOf('client'), {
    'excluded-port/outbound/15020': 1,
    [`excluded-cidr/outbound/${OUTSIDE}/32`]: 1,
    [`excluded-cidr/outbound/${old.ip6}/128`]: 1,
  })
  t.strictSame(
    [...atServer.lines({ from: 'old' }), ...atClient.lines({ from: 'client' })],
    [],
    'none of them came to an agent',
  )

  // What the client's own settings keep out of the tunnel comes to the server in the clear: strict is strict.
  t.ok(wasReset(await curl('client', `http://${server.ip}:8080/`)))
  t.equal((await atServer.next({ direction: 'inbound', from: 'client' })).reason, 'strict')
  await annotate('pod/server', { 'culvert.dev/mtls': null }, 'server', /strict\/inbound/, false)
  t.equal((await curl('client', `http://${server.ip}:8080/`)).code, 0)
  t.equal((await atServer.next({ direction: 'inbound', from: 'client' })).reason, 'excluded-port')

  for (const [node, word] of [
    [server.node, 'excluded-port'],
    [client.node, 'excluded-port'],
    [client.node, 'excluded-cidr'],
  ] as const)
    await until(`${word} in the metrics of ${node}`, 20_000, async () => {
      const text = await metricsOf(lab, node)
      return valueOf(text, `culvert_uncaptured_packets_total{reason="${word}"}`) > 0 || undefined
    })
  await annotate('pod/server', { 'culvert.dev/exclude-inbound-ports': null }, 'server', /excluded-/, false)
  await annotate(
    'pod/client',
    {
      'culvert.dev/mtls-outbound': null,
      'culvert.dev/exclude-outbound-ports': null,
      'culvert.dev/exclude-outbound-cidrs': null,
    },
    'client',
    /excluded-/,
    false,
  )
})

await t.test('the pod’s annotation goes before its namespace’s', async t => {
  await lab.annotate('pod/server', { 'culvert.dev/mtls': 'permissive' })
  await annotate('namespace/shop', { 'culvert.dev/mtls': 'strict' }, 'client', /strict\/inbound/)
  t.notMatch(await rulesOf('server'), /strict\/inbound/)
  t.equal((await curl('old', `http://${server.ip}:8080/`)).code, 0)
  await annotate('pod/server', { 'culvert.dev/mtls': null }, 'server', /strict\/inbound/)
  t.ok(wasReset(await curl('old', `http://${server.ip}:8080/`)))
  await lab.annotate('namespace/shop', { 'culvert.dev/mtls': null })
  await rulesBecome('server', /strict\/inbound/, false)
})

await t.test('an annotation that is not understood is reported, and ignored', async t => {
  await lab.annotate('pod/server', { 'culvert.dev/mtls': 'stritc', 'culvert.dev/mtsl': 'strict' })
  const { meshDetail } = await until('the report', 20_000, async () => {
    const { pods } = await lab.status()
    return pods.find(pod => pod.name === 'server' && pod.meshDetail !== '')
  })
  t.match(meshDetail, /culvert\.dev\/mtls: 'stritc' is not one of strict, permissive/)
  t.match(meshDetail, /culvert\.dev\/mtsl: no such annotation/)
  t.equal((await curl('old', `http://${server.ip}:8080/`)).code, 0)
  await lab.annotate('pod/server', { 'culvert.dev/mtls': null, 'culvert.dev/mtsl': null })
  await until('no problem any more', 20_000, async () => {
    const { pods } = await lab.status()
    return pods.find(pod => pod.name === 'server')?.meshDetail === '' || undefined
  })
})

await t.test(
  'a pod that leaves the mesh and comes back at once is served as before, and nothing is left over',
  async t => {
    const held = await holdConnection(lab, 'client', server.ip, 7000)
    const load = await startLoad(lab, 'client', `http://${server.ip}:8080/`, 40, 600)
    const before = openNamespaces()
    for (let round = 0; round < 3; round++) {
      await lab.annotate('pod/server', { 'culvert.dev/mesh': 'disabled' })
      await lab.waitForPod('server', ['not-enrolled'])
      await lab.annotate('pod/server', { 'culvert.dev/mesh': null })
      await lab.waitForPod('server', ['enrolled'])
    }
    atClient.forget()
    await until(
      'mTLS again',
      20_000,
      () =>
        atClient.lines({ from: 'client', to: `${server.ip}:8080` }).some(({ reason }) => reason === 'mtls') ||
        undefined,
    )
    const { requests, failures } = await load.stop()
    t.strictSame(failures, [], `${requests} new connections`)
    t.match(await held.stop(), { how: 'closed' }, 'an open tunnel lives through it')
    await until('as many open namespaces as before', 20_000, () => openNamespaces() === before || undefined)
  },
)

await t.test('every connection has one word, the same in log and metrics', async t => {
  for (const node of [client.node, server.node]) {
    const isAgreed = await until(`${node}: log and metrics agree`, 20_000, async () => {
      const counts = countedWords(await metricsOf(lab, node))
      const logged = loggedWords(endedConnections(lab, node))
      return JSON.stringify(sorted(counts)) === JSON.stringify(sorted(logged)) ? sorted(counts) : undefined
    })
    t.comment(`${node}: ${JSON.stringify(isAgreed)}`)
    const lines = endedConnections(lab, node).map(line =>
      [line['direction'], line['src.addr'], line['dst.addr'], line['dst.hbone_addr'], line['time']].join(),
    )
    t.equal(new Set(lines).size, lines.length, 'no connection is logged twice')
    t.notMatch(
      await metricsOf(lab, node),
      'reason="forged-mark"',
      'what the agent opens is known for its own',
    )
  }
})

/** Sets annotations and waits until the pod's rules show it. */
async function annotate(
  target: string,
  changes: Record<string, string | null>,
  pod: string,
  rules: RegExp,
  isThere = true,
): Promise<void> {
  await lab.annotate(target, changes)
  await rulesBecome(pod, rules, isThere)
}

async function rulesBecome(pod: string, rules: RegExp, isThere: boolean): Promise<void> {
  await until(`${pod}: ${isThere ? '' : 'no '}${String(rules)}`, 20_000, async () =>
    rules.test(await rulesOf(pod)) === isThere ? true : undefined,
  )
}

async function rulesOf(pod: string): Promise<string> {
  const { node, name } = await lab.pod(pod)
  return (await lab.agentAdmin(node, `/rules?pod=${name}`)).body
}

/** The counted rules of a pod, by name, as `GET /rules` tells them. */
async function countersOf(pod: string): Promise<Record<string, number>> {
  const found = (await rulesOf(pod)).matchAll(/--comment "culvert:([^"]+)".*\n.*\n\s+counted: (\d+)/g)
  return Object.fromEntries([...found].map(([, name, count]) => [name, Number(count)]))
}

function curl(pod: string, url: string): Promise<Ran> {
  return lab.exec(pod, ['curl', '-sS', '-m', '3', '-o', '/dev/null', url])
}

function curlFrom(node: string, url: string): Promise<Ran> {
  return lab.execOnNode(node, ['curl', '-sS', '-m', '3', '-o', '/dev/null', url])
}

/** How many descriptors of namespaces the server's agent has. */
function openNamespaces(): number {
  return openFiles(nodeB.agent?.pid ?? 0).filter(name => name.includes('net')).length
}

function nodeIp(name: string): string {
  return name === nodeB.name ? nodeB.ips[0]! : '10.99.0.11'
}

function counted(direction: string, reason: string): string {
  return `culvert_connections_total{direction="${direction}",reason="${reason}"}`
}

function sorted(counts: Record<string, number>): [string, number][] {
  return Object.entries(counts).sort(([a], [b]) => (a < b ? -1 : 1))
}
