/**
 * What comes to a pod by way of a node: the kubelet's probes, node ports, host ports. The lab has neither a kube-proxy
 * nor a portmap plugin, so the packet rules that those would write are written here.
 */
import t from 'tap'
import { podNamed, until, type AccessLine } from '../../lab/demo/facts.ts'
import type { Ran } from '../../lab/run.ts'
import { labFor } from '../helpers/lab.ts'
import { endedConnections, wasReset } from '../helpers/lab-facts.ts'

const NODE_IP = '10.99.0.12'
/** An address that no node and no pod range has. */
const OUTSIDER = '10.99.0.2'
/** To node ports of a service whose externalTrafficPolicy is Cluster, and Local; host ports are like the latter. */
const CLUSTER_PORT = 30_080
const LOCAL_PORT = 30_081
/** A probe of the pod's spec. */
const PROBED = 8080
const LIMIT_MS = 20_000

const lab = await labFor(t)
const server = await podNamed(lab, 'server')
await leadTo(CLUSTER_PORT, '0x4000')
await leadTo(LOCAL_PORT, '0x0')
await onServersNode(
  ['iptables', '-w', '-t', 'nat', '-A', 'POSTROUTING'],
  ['-m', 'mark', '--mark', '0x4000/0x4000', '-j', 'MASQUERADE', '--random-fully'],
)

await t.test('a TCP probe of a port that nobody listens on fails, in every mode', async t => {
  for (const mtls of ['permissive', 'strict'] as const) {
    await setMode(mtls)
    t.equal(await tcpProbe(PROBED), 'connected')
    t.equal(await tcpProbe(9999), 'ECONNREFUSED', mtls)
  }
  await setMode('permissive')
})

await t.test('of a node port the pod sees the node, or with policy Local the client', async t => {
  const masked = await seen(CLUSTER_PORT)
  t.match(masked.client, new RegExp(`^${NODE_IP}:`))
  t.match(masked.line, { reason: 'peer-host-network' }, 'not taken for a probe')
  const own = await seen(LOCAL_PORT)
  t.match(own.client, new RegExp(`^${OUTSIDER}:`))
  t.match(own.line, { reason: 'peer-external' })
})

await t.test('strict lets neither in, though the port is one that the kubelet probes', async t => {
  await setMode('strict')
  for (const port of [CLUSTER_PORT, LOCAL_PORT]) {
    const before = refusals()
    t.ok(wasReset(await outside(port)))
    t.match(await until('the refusal', LIMIT_MS, () => refusals()[before.length]), { reason: 'strict' })
  }
})

await t.test('strict lets in the probes of root on the node, and of nobody else there', async t => {
  const url = `http://${server.ip}:${PROBED}/`
  t.equal((await onServersNode(['curl', '-sS', '-m', '5', '-o', '/dev/null', url])).code, 0)
  const before = refusals().length
  const nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups']
  t.ok(wasReset(await onServersNode(nobody, ['curl', '-sS', '-m', '5', '-o', '/dev/null', url])))
  await until('the refusal', LIMIT_MS, () => refusals()[before])
})

/** As kube-proxy leads a port of the node to the pod, marked for a masquerade or not. */
async function leadTo(port: number, mark: string): Promise<void> {
  const match = ['-p', 'tcp', '-d', NODE_IP, '--dport', String(port)]
  const add = ['iptables', '-w', '-t', 'nat', '-A', 'PREROUTING', ...match]
  await onServersNode(add, ['-j', 'MARK', '--set-xmark', `${mark}/0x4000`])
  await onServersNode(add, ['-j', 'DNAT', '--to-destination', `${server.ip}:${PROBED}`])
}

function onServersNode(...argv: readonly string[][]): Promise<Ran> {
  return lab.execOnNode(server.node, argv.flat())
}

function outside(port: number): Promise<Ran> {
  return lab.execOnNode('cp', ['curl', '-sS', '-m', '5', `http://${NODE_IP}:${port}/`])
}

/** What the application saw of a request from outside, and what its agent's access log says. */
async function seen(port: number): Promise<{ client: string; line: AccessLine }> {
  const { stdout } = await outside(port)
  const { client } = JSON.parse(stdout.toString()) as { client: string }
  const ip = client.slice(0, client.lastIndexOf(':'))
  const line = await until(`a line of ${client}`, LIMIT_MS, () =>
    inbound().findLast(
      line => String(line['src.addr']).startsWith(`${ip}:`) && line.reason !== 'kubelet-probe',
    ),
  )
  return { client, line }
}

function inbound(): AccessLine[] {
  return endedConnections(lab, server.node).filter(line => line['direction'] === 'inbound')
}

function refusals(): AccessLine[] {
  return inbound().filter(({ reason }) => reason === 'strict')
}

async function setMode(mtls: 'strict' | 'permissive'): Promise<void> {
  await lab.annotate('pod/server', { 'culvert.dev/mtls': mtls })
  await until(mtls, LIMIT_MS, async () => {
    const { body } = await lab.agentAdmin(server.node, '/rules?pod=server')
    return body.includes('strict/inbound') === (mtls === 'strict') || undefined
  })
}

/** All that a kubelet does for a `tcpSocket` probe. */
async function tcpProbe(port: number): Promise<string> {
  const script = `require('node:net').connect(${port}, '${server.ip}')
    .on('connect', () => { console.log('connected'); process.exit() })
    .on('error', err => console.log(err.code))`
  return (await onServersNode([process.execPath, '-e', script])).stdout.toString().trim()
}
