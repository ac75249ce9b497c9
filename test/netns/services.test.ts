/** Services as users know them from kube-proxy, seen from a pod in the mesh: who answers, and how it was reached. */
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { podNamed, until, type AccessLine } from '../../lab/demo/facts.ts'
import { labFor, patient } from '../helpers/lab.ts'
import { endedConnections } from '../helpers/lab-facts.ts'

const NODE_B = '10.99.0.12'
/** Waits are for a machine that does ten other things. */
const LIMIT_MS = 20_000
/** The client's: each request is known by its own. */
let nextPort = 20_000
const lab = await labFor(t, { file: fileURLToPath(new URL('services.yaml', import.meta.url)) })
const client = await podNamed(lab, 'client')
const { services } = await lab.status()

await t.test('a headless service is its pods: their addresses lead through the tunnel', async t => {
  const db = await podNamed(lab, 'db')
  for (const host of [db.ip, `[${db.ip6}]`])
    t.match(await ask(`http://${host}:8080/`), { pod: 'db', line: { reason: 'mtls' } })
})

await t.test(
  'near endpoints are taken where the service says so, those of the node or of the zone',
  async t => {
    for (const name of ['local', 'near'])
      for (let at = 0; at < 6; at++)
        t.match(await ask(`http://${vip(name)}/`), { pod: 'one', line: { reason: 'mtls' } }, name)
  },
)

await t.test('addresses and ports for the outside lead a pod through the tunnel', async t => {
  for (const url of ['http://203.0.113.7/', 'http://203.0.113.8/', `http://${NODE_B}:30080/`]) {
    const { pod, line } = await ask(url)
    t.match(pod, /^(?:one|two)$/)
    t.match(line, { reason: 'mtls', 'dst.service': 'outer.shop.svc.cluster.local' }, url)
  }
  t.match(await ask(`http://${NODE_B}:31080/`), { pod: 'db', line: { reason: 'mtls' } }, 'a host port')
  const other = await ask(`http://${NODE_B}:15021/healthz/ready`)
  t.match(other.line, { reason: 'peer-host-network' }, 'other ports of a node are its own')
})

await t.test('an endpoint that was written by hand is the pod that has the address', async t => {
  t.match(await ask(`http://${vip('by-hand')}/`), { pod: 'db', line: { reason: 'mtls' } })
})

await t.test("require spares the API server, and does not spare another mesh's pods", async t => {
  const { ip } = await podNamed(lab, 'foreign')
  const url = `http://${ip}:8080/`
  t.match(await ask(url), { pod: 'foreign', line: { reason: 'peer-not-enrolled' } })
  const { pods } = await lab.status()
  t.equal(pods.find(({ name }) => name === 'foreign')?.mesh, 'not-enrolled')

  await lab.annotate('pod/client', { 'culvert.dev/mtls-outbound': 'require' })
  const refused = await until('a refusal', LIMIT_MS, async () => {
    const { line } = await ask(url)
    return line.reason === 'strict' ? line : undefined
  })
  t.match(refused['error'], /is not enrolled \(pod has an Istio proxy: left alone\)/)
  const api = await ask(`http://${vip('kubernetes')}:443/readyz`)
  t.match(api.line, { reason: 'peer-external', 'dst.addr': '10.99.0.2:15014' })
  await lab.annotate('pod/client', { 'culvert.dev/mtls-outbound': null })
})

await t.test('a client of a service with affinity has one endpoint, as long as that is there', async t => {
  const answers = async () => {
    const pods = new Set<string | undefined>()
    for (let at = 0; at < 8; at++) pods.add((await ask(`http://${vip('sticky')}/`)).pod)
    return [...pods]
  }
  const [first = '', ...rest] = await answers()
  t.strictSame(rest, [])
  await lab.addPods(echoPod('three'))
  const isThird = async () => (await ask('http://203.0.113.7/')).pod === 'three' || undefined
  await until('the third to take its share of another service', LIMIT_MS, isThird)
  t.strictSame(await answers(), [first], 'one that comes takes nobody away')
  await lab.delPod(first, 1)
  const [second, ...others] = await answers()
  t.strictSame(others, [])
  t.not(second, first)
})

await t.test('without any ready endpoint those on their way out are used while they answer', async t => {
  const { pods } = await lab.status()
  const far = pods.map(({ name }) => name).filter(name => /^(?:two|three)$/.test(name))
  if (pods.some(({ name }) => name === 'one')) await lab.delPod('one', 1)
  // It takes a moment until the other node has heard that the one in the zone is gone.
  const isFar = async () => far.includes((await ask(`http://${vip('near')}/`)).pod ?? '') || undefined
  t.ok(await until('an answer of another zone', LIMIT_MS, isFar), 'without one in the zone, those of others')
  for (const name of far) await lab.delPod(name, 1)
  await lab.addPods(patient(echoPod('patient')))
  const url = 'http://203.0.113.7/'
  const isPatient = async () => (await ask(url)).pod === 'patient' || undefined
  await until('an answer', LIMIT_MS, isPatient)
  const deleted = lab.delPod('patient', 5)
  await until('it is going', LIMIT_MS, async () => (await lab.pod('patient')).terminating || undefined)
  for (let at = 0; at < 5; at++)
    t.match(await ask(url), { pod: 'patient', line: { reason: 'mtls', 'dst.workload': 'patient' } })
  await deleted
  // The other node hears of it a moment later; until then the connection fails at the pod's address.
  const hasNoEndpoint = async () => {
    const { pod, line } = await ask(url)
    t.equal(pod, undefined)
    return line.reason === 'no-endpoint' || undefined
  }
  t.ok(await until('no endpoint', LIMIT_MS, hasNoEndpoint))
})

await t.test('a pod that comes again under its name is another one, at its new address', async t => {
  const before = await podNamed(lab, 'db')
  await lab.delPod('db', 1)
  await lab.addPods(echoPod('db', 'node-a'))
  const after = await podNamed(lab, 'db')
  t.not(after.uid, before.uid)
  t.match(await ask(`http://${after.ip}:8080/`), { pod: 'db', line: { reason: 'mtls' } })
  t.match(await ask(`http://${before.ip}:8080/`), { pod: undefined, line: { reason: 'unreachable' } })
})

/** One request from the client: who answered, and what its agent's access log says of the connection. */
async function ask(url: string): Promise<{ pod: string | undefined; line: AccessLine }> {
  const port = nextPort++
  const { stdout } = await lab.exec('client', ['curl', '-sS', '-m', '10', '--local-port', `${port}`, url])
  const line = await until(`the end of ${url} from port ${port}`, LIMIT_MS, () =>
    endedConnections(lab, client.node).find(
      line => line['direction'] === 'outbound' && String(line['src.addr']).endsWith(`:${port}`),
    ),
  )
  return { pod: /"pod": "([^"]+)"/.exec(stdout.toString())?.[1], line }
}

function vip(name: string): string {
  return services.find(service => service.name === name)?.clusterIPs[0] ?? ''
}

function echoPod(name: string, node = 'node-b'): string {
  return `apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: shop, labels: { app: echo }, annotations: { culvert.dev/lab-node: ${node} } }
spec: { containers: [{ name: app, image: culvert.dev/lab-app }] }
`
}
