/** A real ztunnel that knows the mesh from our ca-server alone, and follows it as it changes. */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { startLoad } from '../../lab/demo/clients.ts'
import { httpGet, podNamed, until } from '../../lab/demo/facts.ts'
import { replaceFile } from '../../lab/files.ts'
import { formatAddress } from '../../lib/address.ts'
import { Watch } from '../helpers/lab-facts.ts'
import { withZtunnel, type Ztunnel, type ZtunnelState } from '../helpers/ztunnel.ts'

const SERVER_3 = `apiVersion: v1
kind: Pod
metadata:
  name: server-3
  namespace: shop
  labels: { app: echo }
  annotations: { culvert.dev/lab-node: node-a }
spec:
  serviceAccountName: server
  containers:
    - name: app
      image: culvert.dev/lab-app
      env: [{ name: LINGER_MS, value: '1500' }]
      ports: [{ name: http, containerPort: 8080 }]
`

/** A pod whose sandbox is being made: the agents are told who it is before it has an address. */
const STARTING = `---
apiVersion: v1
kind: Pod
metadata: { name: starting, namespace: shop, uid: starting-1, labels: { app: echo } }
spec:
  nodeName: node-b
  serviceAccountName: server
  containers: [{ name: app, image: app }]
status: { phase: Pending }
`

await withZtunnel(t, {}, async (lab, start) => {
  const [inside, outside] = await Promise.all([start('zclient'), start('zserver')])
  const service = (await lab.status()).services.find(({ name }) => name === 'echo')!
  const log = new Watch(lab, 'node-a')

  await t.test('it knows the pods and the service as they are', async t => {
    const { workloads, services } = await inside.state()
    for (const name of ['client', 'server', 'zclient', 'zserver'])
      t.match(
        workloads.find(workload => workload.name === name),
        { namespace: 'shop', protocol: 'HBONE' },
      )
    const known = services.find(({ name }) => name === 'echo')
    t.match(Object.keys(known?.endpoints ?? {}).sort(), [/shop\/server$/, /shop\/zserver$/])
  })

  await t.test('a pod that has no address yet is known, and in nobody’s way', async t => {
    const { cluster } = lab.paths
    const before = readFileSync(cluster, 'utf8')
    replaceFile(cluster, before + STARTING)
    await knows(inside, 'the pod', protocolOf('starting', 'TCP'))
    const { workloads } = await inside.state()
    t.match(
      workloads.find(({ name }) => name === 'starting'),
      { namespace: 'shop', workloadIps: [] },
    )
    const url = `http://${service.clusterIPs[0]}/`
    t.strictSame(await until('both servers', 10_000, both(lab, 'zclient', url)), ['server', 'zserver'])
    replaceFile(cluster, before)
    await knows(
      inside,
      'that it is gone',
      ({ workloads }) => !workloads.some(({ name }) => name === 'starting'),
    )
  })

  for (const vip of service.clusterIPs)
    for (const from of ['zclient', 'client'])
      await t.test(`the service's address ${vip} leads ${from} to both servers`, async t => {
        log.forget()
        const url = `http://${formatAddress(vip, 80)}/`
        const pods = await until('both servers', 20_000, both(lab, from, url))
        t.strictSame(pods, ['server', 'zserver'])
        t.match(await log.next({ from }), { reason: 'mtls' })
      })

  await t.test(
    'a pod that comes behind the service is used, one that goes is not: no connection fails',
    async t => {
      const url = `http://${service.clusterIPs[0]}/`
      const load = await startLoad(lab, 'zclient', url, 40, 600)
      await lab.addPods(SERVER_3)
      await knows(inside, 'an endpoint more', state => endpoints(state) === 3)
      const { ip } = await podNamed(lab, 'server-3')
      await log.next({ direction: 'inbound', from: 'zclient', to: `${ip}:8080` })
      await lab.delPod('server-3', 3)
      await knows(inside, 'an endpoint less', state => endpoints(state) === 2)
      await knows(inside, 'a pod less', ({ workloads }) => !workloads.some(({ name }) => name === 'server-3'))
      const { requests, failures, pods } = await load.stop()
      t.strictSame(failures, [], `${requests} new connections`)
      t.strictSame(Object.keys(pods).sort(), ['server', 'server-3', 'zserver'])
    },
  )

  await t.test(
    'a pod that leaves the mesh is sent plaintext, and a tunnel again when it is back',
    async t => {
      const { ip } = await podNamed(lab, 'server')
      const url = `http://${ip}:8080/`
      await lab.annotate('pod/server', { 'culvert.dev/mesh': 'disabled' })
      await lab.waitForPod('server', ['not-enrolled'])
      await knows(inside, 'that it takes no tunnels', protocolOf('server', 'TCP'))
      t.equal((await httpGet(lab, 'zclient', url)).pod, 'server')
      const plain = await inside.log.line('plaintext', line => line['dst.addr'] === `${ip}:8080`)
      t.match(plain, { direction: 'outbound', level: 'info', 'dst.identity': undefined })
      await lab.annotate('pod/server', { 'culvert.dev/mesh': null })
      await lab.waitForPod('server', ['enrolled'])
      await knows(inside, 'that it takes tunnels', protocolOf('server', 'HBONE'))
      log.forget()
      t.equal((await httpGet(lab, 'zclient', url)).pod, 'server')
      t.match(await log.next({ from: 'zclient', to: `${ip}:8080` }), { direction: 'inbound', reason: 'mtls' })
    },
  )

  await t.test(
    'while the ca-server is away, what is known goes on; then ztunnel hears of what has changed',
    async t => {
      const { ip } = await podNamed(lab, 'server')
      await lab.stopCaServer()
      t.equal((await httpGet(lab, 'zclient', `http://${ip}:8080/`)).pod, 'server')
      t.equal((await httpGet(lab, 'client', `http://${service.clusterIPs[0]}/`)).pod.endsWith('server'), true)
      await lab.annotate('pod/zserver', { 'culvert.dev/mesh': 'disabled' })
      await lab.startCaServer()
      await knows(inside, 'the change', protocolOf('zserver', 'TCP'))
      await knows(outside, 'the change', protocolOf('zserver', 'TCP'))
    },
  )
})

/** Asks until two pods have answered, and gives their names. */
function both(lab: Parameters<typeof httpGet>[0], from: string, url: string) {
  const pods = new Set<string>()
  return async () => {
    pods.add((await httpGet(lab, from, url)).pod)
    return pods.size > 1 ? [...pods].sort() : undefined
  }
}

async function knows(ztunnel: Ztunnel, what: string, isSo: (state: ZtunnelState) => boolean): Promise<void> {
  await until(`${what} in ztunnel`, 20_000, async () => isSo(await ztunnel.state()) || undefined)
}

function endpoints({ services }: ZtunnelState): number {
  return Object.keys(services.find(({ name }) => name === 'echo')?.endpoints ?? {}).length
}

function protocolOf(pod: string, protocol: string) {
  return ({ workloads }: ZtunnelState) => workloads.find(({ name }) => name === pod)?.protocol === protocol
}
