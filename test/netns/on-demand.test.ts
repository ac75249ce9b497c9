/** Agents that hold only what their pods talk to, in a lab: what they hold, when they hear of it, and what it costs. */
import t, { type Test } from 'tap'
import { holdConnection, startLoad } from '../../lab/demo/clients.ts'
import { httpGet, podNamed, until } from '../../lab/demo/facts.ts'
import type { Ran } from '../../lab/run.ts'
import { idlePod, labFor, patient } from '../helpers/lab.ts'
import { endedConnections, metricsOf, valueOf, wasReset, Watch } from '../helpers/lab-facts.ts'

const REQUIRE = 'culvert.dev/mtls-outbound: require'
/** As an agent says them in its `config_dump`. */
interface Held {
  readonly mesh: {
    readonly sizes: Readonly<Record<string, number>>
    readonly workloads: readonly { readonly name: string }[]
    readonly services: readonly { readonly key: string; readonly info?: unknown }[]
    readonly demand: { readonly names: readonly { readonly name: string; readonly state: string }[] }
  }
}

const lab = await labFor(t, { name: `m${process.pid}`, agentEnv: { DISCOVERY: 'on-demand' } })
await lab.addPods(
  idlePod('careful', 'shop', 'client', 'node-a').replace('annotations: {', `annotations: { ${REQUIRE},`),
)
for (const pod of ['client', 'careful', 'server', 'server-2']) await lab.waitForPod(pod, ['enrolled'])
const [server, old] = await Promise.all([podNamed(lab, 'server'), podNamed(lab, 'old')])
const vip = (await lab.status()).services.find(({ name }) => name === 'echo')!.clusterIPs[0]!
const log = new Watch(lab, 'node-a')

await t.test('an agent holds the pods of its node, and what they talk to', async t => {
  await holds('node-a', ['careful', 'client', 'server-2'])
  await holds('node-b', ['old', 'server'])
  const firstMs = await fetchMs(t, 'client', `http://${server.ip}:8080/`)
  t.match(await log.next({ from: 'client' }), { reason: 'mtls', 'dst.workload': 'server' })
  const secondMs = await fetchMs(t, 'client', `http://${server.ip}:8080/`)
  await log.next({ from: 'client' })
  await holds('node-a', ['careful', 'client', 'server', 'server-2'])
  await holds('node-b', ['client', 'old', 'server']) // who calls is known by name, too
  t.match(await sizes('node-a'), { workloads: 5, services: 0, askedFound: 1, askedPending: 0 })
  const metrics = await metricsOf(lab, 'node-a')
  const [sum, count] = ['sum', 'count'].map(of => valueOf(metrics, `culvert_discovery_answer_seconds_${of}`))
  t.equal(count, 1)
  t.comment(
    `first connection ${firstMs} ms, second ${secondMs} ms, of which the answer took ${sum! * 1000} ms`,
  )
  const inbound = endedConnections(lab, 'node-b').filter(line => line['dst.workload'] === 'server')
  t.match(inbound[0], { 'src.workload': 'client', reason: 'mtls' })
})

await t.test('what is not in the mesh is told from what is, the first time', async t => {
  log.forget()
  t.equal((await get('client', `http://${old.ip}:8080/`)).code, 0)
  t.match(await log.next({ from: 'client' }), { reason: 'peer-not-enrolled', 'dst.workload': 'old' })
  t.ok(wasReset(await get('careful', `http://${old.ip}:8080/`)))
  t.match(await log.next({ from: 'careful' }), { reason: 'strict', error: /is not enrolled/ })
  const outside = (await lab.status()).nodes.find(({ name }) => name === 'node-b')!.ips[0]!
  await get('client', `http://${outside}:9/`)
  t.match(await log.next({ from: 'client' }), { error: /refused|ECONNREFUSED/i })
})

await t.test('a service leads to all of its endpoints, to those that come, and to none that go', async t => {
  const load = await startLoad(lab, 'client', `http://${vip}/`, 50, 60)
  await until('both servers', 10_000, () => used('server') && used('server-2'))
  t.match(await sizes('node-a'), { services: 1 })
  await lab.addPods(patient(endpoint('server-3')))
  await until('the third', 10_000, () => used('server-3'))
  t.ok((await held('node-a')).includes('server-3'))
  await lab.delPod('server-3', 3)
  await until(
    'that it is gone',
    10_000,
    async () => !(await held('node-a')).includes('server-3') || undefined,
  )
  const { requests, failures, pods } = await load.stop()
  t.strictSame(failures, [], `${requests} new connections`)
  t.strictSame(Object.keys(pods).sort(), ['server', 'server-2', 'server-3'])
})

await t.test('a pod leaves the mesh and comes back: it is heard of, and nothing fails', async t => {
  await lab.annotate('pod/server', { 'culvert.dev/mesh': 'disabled' })
  await lab.waitForPod('server', ['not-enrolled'])
  await reachedAs(t, server.ip, 'peer-not-enrolled')
  await lab.annotate('pod/server', { 'culvert.dev/mesh': null })
  await lab.waitForPod('server', ['enrolled'])
  await reachedAs(t, server.ip, 'mtls')
})

await t.test('an address passes to another pod: it is taken for the new one', async t => {
  await lab.addPods(endpoint('first'))
  const first = await podNamed(lab, 'first')
  await reachedAs(t, first.ip, 'mtls')
  await lab.delPod('first', 1)
  const addresses = `status: { podIPs: [{ ip: ${first.ip} }, { ip: '${first.ip6}' }] }\n`
  await lab.addPods(
    endpoint('second').replace('namespace: shop', 'namespace: legacy').replace('Name: server', 'Name: old') +
      addresses,
  )
  await reachedAs(t, first.ip, 'peer-not-enrolled')
  t.ok((await held('node-a')).includes('second') && !(await held('node-a')).includes('first'))
  await lab.delPod('second', 1)
})

await t.test('while the ca-server is away what is held goes on; then it is brought up to date', async t => {
  await lab.addPods(
    endpoint('stranger').replace('namespace: shop', 'namespace: legacy').replace('Name: server', 'Name: old'),
  )
  const { ip } = await podNamed(lab, 'stranger')
  const open = await holdConnection(lab, 'client', server.ip, 7000)
  const before = await held('node-a')
  await lab.stopCaServer()
  await discoveryIs('node-a', 0)
  t.match(await httpGet(lab, 'client', `http://${server.ip}:8080/`), { pod: 'server' })
  t.match((await httpGet(lab, 'client', `http://${vip}/`)).pod, /^server/)
  log.forget()
  const unknown = `http://${ip}:8080/`
  const to = `${ip}:8080`
  const startedAt = performance.now()
  const [plain, refused] = await Promise.all([get('client', unknown), get('careful', unknown)])
  t.ok(performance.now() - startedAt > 900, 'held before it is called unknown')
  t.equal(plain.code, 0, plain.stderr)
  t.ok(wasReset(refused))
  const line = (from: string) => until(`the line of ${from}`, 3000, () => log.lines({ from, to })[0])
  t.match(await line('client'), { reason: 'peer-unknown' })
  t.match(await line('careful'), { reason: 'strict', error: /not known to discovery/ })
  t.strictSame(await held('node-a'), before, 'nothing is forgotten')

  await lab.annotate('pod/server', { 'culvert.dev/mesh': 'disabled' })
  await lab.startCaServer()
  await discoveryIs('node-a', 1)
  await reachedAs(t, server.ip, 'peer-not-enrolled')
  await lab.annotate('pod/server', { 'culvert.dev/mesh': null })
  await reachedAs(t, server.ip, 'mtls')
  log.forget()
  t.equal((await get('client', unknown)).code, 0)
  t.match(await line('client'), { reason: 'peer-not-enrolled', 'dst.workload': 'stranger' })
  t.match(await open.stop(), { how: 'closed' })
})

function used(pod: string): true | undefined {
  return log.lines({ from: 'client' }).some(line => line['dst.workload'] === pod) || undefined
}

/** Calls until it is under this word. None of the calls may fail. */
async function reachedAs(t: Test, ip: string, reason: string): Promise<void> {
  await until(`${ip} as ${reason}`, 15_000, async () => {
    log.forget()
    const { code, stderr } = await get('client', `http://${ip}:8080/`)
    t.equal(code, 0, stderr)
    return (await log.next({ from: 'client' })).reason === reason || undefined
  })
}

function get(pod: string, url: string): Promise<Ran> {
  return lab.exec(pod, ['curl', '-sS', '-g', '-m', '14', '-o', '/dev/null', url])
}

/** Milliseconds from the connection to the first byte of the answer. */
async function fetchMs(t: Test, pod: string, url: string): Promise<number> {
  const argv = ['curl', '-sS', '-m', '14', '-o', '/dev/null', '-w', '%{time_starttransfer}', url]
  const { code, stdout, stderr } = await lab.exec(pod, argv)
  t.equal(code, 0, stderr)
  return Number(stdout) * 1000
}

async function dump(node: string): Promise<Held['mesh']> {
  return (JSON.parse((await lab.agentAdmin(node, '/config_dump')).body) as Held).mesh
}

/** Pods that an agent holds; its own pod, which the cluster knows like any other, left out. */
async function held(node: string): Promise<string[]> {
  const names = (await dump(node)).workloads.map(({ name }) => name)
  return names.filter(name => name !== `culvert-agent-${node}`).sort()
}

/** Waits until an agent holds exactly these. */
async function holds(node: string, names: readonly string[]): Promise<void> {
  let last = ''
  const are = async () => (last = (await held(node)).join()) === names.join() || undefined
  await until(`${node} to hold ${names.join()}`, 10_000, are).catch((err: unknown) => {
    throw new Error(`it holds ${last}`, { cause: err })
  })
}

async function sizes(node: string): Promise<Record<string, number>> {
  return (await dump(node)).sizes
}

async function discoveryIs(node: string, connected: 0 | 1): Promise<void> {
  await until(`${node}: discovery ${connected ? '' : 'not '}connected`, 10_000, async () =>
    valueOf(await metricsOf(lab, node), 'culvert_discovery_connected') === connected ? true : undefined,
  )
}

function endpoint(name: string): string {
  return `apiVersion: v1
kind: Pod
metadata:
  name: ${name}
  namespace: shop
  labels: { app: echo }
  annotations: { culvert.dev/lab-node: node-b }
spec:
  serviceAccountName: server
  containers:
    - name: app
      image: culvert.dev/lab-app
      ports: [{ name: http, containerPort: 8080 }, { name: echo, containerPort: 7000 }]
`
}
