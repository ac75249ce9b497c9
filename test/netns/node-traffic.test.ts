/**
 * What comes to a pod by way of a node: the kubelet's probes, node ports, host ports. The lab has neither a kube-proxy
 * nor a portmap plugin, so the packet rules that those would write are written here.
 */
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
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

/** A name that no process of this machine has. */
const KUBELET = `kubelet-${process.pid}`.slice(0, 15)

const lab = await labFor(t, { kubelet: KUBELET })
const server = await podNamed(lab, 'server')
const kubelet = await startKubelet()
await leadTo(CLUSTER_PORT, '0x4000')
await leadTo(LOCAL_PORT, '0x0')
await onServersNode(
  ['iptables', '-w', '-t', 'nat', '-A', 'POSTROUTING'],
  ['-m', 'mark', '--mark', '0x4000/0x4000', '-j', 'MASQUERADE', '--random-fully'],
)

await t.test('probes succeed and fail in every mode as they do without a mesh', async t => {
  for (const mtls of ['permissive', 'strict'] as const) {
    await setMode(mtls)
    const before = inbound().length
    t.equal(await kubelet(`http http://${server.ip}:${PROBED}/`), '200', mtls)
    t.equal(await kubelet(`tcp ${server.ip} ${PROBED}`), 'connected', mtls)
    t.equal(await kubelet(`tcp ${server.ip} 9999`), 'ECONNREFUSED', `${mtls}: a port that nobody listens on`)
    const lines = await until('their lines', LIMIT_MS, () => {
      const since = inbound().slice(before)
      return since.length >= 2 ? since : undefined
    })
    t.strictSame(
      lines.map(({ reason, error }) => [reason, error]),
      [
        ['kubelet-probe', undefined],
        ['kubelet-probe', undefined],
      ],
      mtls,
    )
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

await t.test('strict lets nobody else of the node in, on the port of a probe', async t => {
  for (const argv of [
    ['curl', '-sS', '-m', '5', '-o', '/dev/null', `http://${server.ip}:${PROBED}/`],
    // One that is gone before anybody can ask whose it was.
    [
      process.execPath,
      '-e',
      `require('net').connect(${PROBED}, '${server.ip}').end('GET / HTTP/1.0\\r\\n\\r\\n').unref()`,
    ],
  ]) {
    const before = refusals().length
    await onServersNode(argv)
    t.match(await until('the refusal', LIMIT_MS, () => refusals()[before]), { bytes_sent: 0, bytes_recv: 0 })
  }
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

/** Gives a function that has a probe made and gives what became of it. */
async function startKubelet(): Promise<(probe: string) => Promise<string>> {
  const program = fileURLToPath(new URL('../helpers/stand-in-kubelet.ts', import.meta.url))
  const [command = '', ...args] = lab.nodeArgv(server.node, [
    process.execPath,
    '--disable-warning=ExperimentalWarning',
    program,
    KUBELET,
  ])
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  child.stdin.on('error', () => undefined)
  t.teardown(() => child.stdin.end())
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async () => String((await lines.next()).value)
  await next()
  return async probe => {
    child.stdin.write(`${probe}\n`)
    return next()
  }
}
