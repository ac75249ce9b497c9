/** What breaks and what is replaced, and who notices. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { LoadResult } from '../../lab/demo/load.ts'
import { until } from '../../lab/demo/facts.ts'
import { accessLog, admin, agentOn, SYSTEM } from '../../test/cluster/agents.ts'
import { holdConnection, startLoad } from '../../test/cluster/clients.ts'
import { ipOf } from '../../test/cluster/eyes.ts'
import { inSeconds } from './coming-in.ts'
import { measureEnds } from './ends.ts'
import { measureRollout } from './rollout.ts'
import type { Measured } from './table.ts'
import { clientOf, serverIp, type BenchWorld } from './world.ts'

const RATE = 100
const A_WHILE_MS = 1500
const OPEN = 10
const CLIENT = clientOf('mesh')
const STRANGER = clientOf('none')

export async function measureFaults(world: BenchWorld): Promise<Record<string, Measured>> {
  return {
    ...(await killed(world)),
    ...(await measureRollout(world)),
    ...(await flushed(world)),
    ...(await controlAway(world)),
    ...(await strict(world)),
    ...(await measureEnds(world)),
  }
}

/** Kills the agent's process on a node. Gives when, Unix milliseconds. */
async function killAgent({ kubectl, eyes }: BenchWorld, node: string): Promise<number> {
  const [namespace = '', name = ''] = (await agentOn(kubectl, node)).split('/')
  const { uid } = (await kubectl.get('pod', '-n', namespace, name)).metadata
  const { code, stdout } = await eyes.onNode(node, ['node', 'bench/cluster/kill-agent.ts', uid])
  if (code !== 0) throw new Error(`no agent to kill on ${node}`)
  return Number(stdout.toString())
}

/** How long new connections failed, from the first failure's begin to the last one's; those that were open left out. */
function failing({ failures }: LoadResult, killedAtMs: number): number {
  const failed = failures.filter(
    ({ startedAtMs, failedAtMs }) => !(startedAtMs <= killedAtMs && failedAtMs - killedAtMs < 500),
  )
  if (failed.length === 0) return 0
  return (
    Math.max(...failed.map(({ failedAtMs }) => failedAtMs)) -
    Math.min(...failed.map(({ startedAtMs }) => startedAtMs))
  )
}

async function killed(world: BenchWorld): Promise<Record<string, Measured>> {
  const { kubectl, nodes } = world
  const ip = await serverIp(world, 'mesh')
  const how: Record<string, number> = {}
  const windows: number[] = []
  let slowestMs = 0
  for (const node of [nodes.near, nodes.far]) {
    world.progress(`the agent of ${node} is killed`)
    const held = await Promise.all(
      Array.from({ length: OPEN }, () => holdConnection(kubectl, CLIENT, ip, 7000)),
    )
    const load = await startLoad(kubectl, CLIENT, `http://${ip}:8080/`, RATE)
    await sleep(A_WHILE_MS)
    const atMs = await killAgent(world, node)
    for (const connection of held) {
      const end = (await connection.result).how
      how[end] = (how[end] ?? 0) + 1
    }
    await sleep(2 * A_WHILE_MS)
    const result = await load.stop()
    windows.push(failing(result, atMs))
    slowestMs = Math.max(slowestMs, result.slowestMs)
  }
  world.progress('an agent is killed again')
  const load = await startLoad(kubectl, CLIENT, `http://${ip}:8080/`, RATE)
  const atMs = await killAgent(world, nodes.near)
  await sleep(5000)
  const againAtMs = await killAgent(world, nodes.near)
  await sleep(10_000)
  const twice = await load.stop()
  const fresh = {
    ...twice,
    failures: twice.failures.filter(({ failedAtMs }) => Math.abs(failedAtMs - atMs) > 500),
  }
  const window = failing(fresh, againAtMs)
  const tell = (ms: number) => (ms === 0 ? 'none fails' : `fail for ${inSeconds(ms)}`)
  return {
    'kill-open': {
      text: Object.entries(how)
        .map(([end, count]) => `${end === 'end' ? 'a clean end' : end}, ${count}`)
        .join('; '),
    },
    'kill-new': {
      text: `${windows.map(tell).join(' / ')}; the slowest took ${inSeconds(slowestMs)}`,
      value: Math.max(...windows),
    },
    'kill-twice': { text: `${tell(window)}; the slowest took ${inSeconds(twice.slowestMs)}`, value: window },
  }
}

async function flushed(world: BenchWorld): Promise<Record<string, Measured>> {
  const { kubectl, eyes } = world
  world.progress('rules are flushed')
  const ip = await serverIp(world, 'mesh')
  const [client, server] = [
    await kubectl.get('pod', '-n', 'bench-mesh', 'client'),
    await kubectl.get('pod', '-n', 'bench-mesh', 'server'),
  ]
  const flush = (pod: typeof client) =>
    eyes.inPod(pod, ['sh', '-c', 'for t in nat mangle filter; do iptables -t $t -F; done'])
  const repaired = async (pod: typeof client) => {
    const startedAt = performance.now()
    await until('the rules', 10_000, async () => (await eyes.rulesOf(pod)).includes('15001') || undefined)
    return performance.now() - startedAt
  }
  const load = await startLoad(kubectl, CLIENT, `http://${ip}:8080/`, RATE)
  await flush(client)
  const clientMs = await repaired(client)
  const { requests, failures } = await load.stop()
  await kubectl.annotate('namespace/bench-mesh', 'culvert.dev/mtls', 'strict')
  await whenRefused(world, ip)
  const stranger = await startLoad(kubectl, STRANGER, `http://${ip}:8080/`, 50)
  const mesh = await startLoad(kubectl, CLIENT, `http://${ip}:8080/`, 50)
  await flush(server)
  const serverMs = await repaired(server)
  const outside = await stranger.stop()
  const inside = await mesh.stop()
  await kubectl.annotate('namespace/bench-mesh', 'culvert.dev/mtls', null)
  const gotIn = outside.requests - outside.failures.length
  return {
    'flush-client': {
      text: `put back within ${clientMs.toFixed(0)} ms (looking included), reported as drift; ${failures.length} of ${requests} connections failed`,
    },
    'flush-server': {
      text: `put back within ${serverMs.toFixed(0)} ms; ${gotIn} of ${outside.requests} plaintext connections got in, ${inside.failures.length} of ${inside.requests} mesh connections failed`,
      value: gotIn,
    },
  }
}

/** Waits until plaintext is refused; gives how it was. */
async function whenRefused({ kubectl }: BenchWorld, ip: string): Promise<string> {
  return await until('plaintext refused', 10_000, async () => {
    const ran = await kubectl.exec(STRANGER, ['node', 'test/cluster/get.ts', `http://${ip}:8080/`])
    const got = JSON.parse(ran.stdout.toString()) as { ok: boolean; error?: string }
    return got.ok ? undefined : got.error
  })
}

async function controlAway(world: BenchWorld): Promise<Record<string, Measured>> {
  const { kubectl, nodes, image } = world
  world.progress('the ca-server is away')
  const ip = await serverIp(world, 'mesh')
  const replicas = (await kubectl.get('deploy', '-n', SYSTEM, 'culvert-ca')).spec.replicas ?? 2
  await kubectl.ok(['-n', SYSTEM, 'scale', 'deploy/culvert-ca', '--replicas=0'])
  await until('no ca-server', 60_000, async () => {
    const pods = await kubectl.list('pods', '-n', SYSTEM, '-l', 'app.kubernetes.io/name=culvert-ca')
    return pods.length === 0 || undefined
  })
  const load = await startLoad(kubectl, CLIENT, `http://${ip}:8080/`, RATE)
  await kubectl.apply(`
apiVersion: v1
kind: Pod
metadata: { name: unheard-of, namespace: bench-mesh }
spec:
  nodeName: ${nodes.far}
  terminationGracePeriodSeconds: 0
  containers: [{ name: app, image: '${image}', command: [node, lab/app/main.ts], env: [{ name: POD_NAME, value: unheard-of }] }]
`)
  await kubectl.ok(['-n', 'bench-mesh', 'wait', '--for=condition=Ready', 'pod/unheard-of', '--timeout=60s'])
  const fresh = ipOf(await kubectl.get('pod', '-n', 'bench-mesh', 'unheard-of'))
  const ran = await kubectl.exec(CLIENT, ['node', 'test/cluster/get.ts', `http://${fresh}:8080/`, '15000'])
  const got = JSON.parse(ran.stdout.toString()) as { ok: boolean; error?: string }
  const { requests, failures } = await load.stop()
  const line = (await accessLog(kubectl, nodes.near)).findLast(entry =>
    String(entry['dst.addr']).startsWith(`${fresh}:`),
  )
  await kubectl.ok(['-n', SYSTEM, 'scale', 'deploy/culvert-ca', `--replicas=${replicas}`])
  await kubectl.ok(['-n', SYSTEM, 'rollout', 'status', 'deploy/culvert-ca', '--timeout=120s'])
  await until(
    'the new pod in the mesh',
    60_000,
    async () =>
      (await kubectl.get('pod', '-n', 'bench-mesh', 'unheard-of')).metadata.annotations?.[
        'culvert.dev/status'
      ]?.startsWith('enrolled') || undefined,
  )
  await kubectl.ok(['-n', 'bench-mesh', 'delete', 'pod', 'unheard-of', '--now'])
  return {
    'control-away': {
      text: `those there before: ${failures.length} of ${requests} fail; to a new pod: ${got.ok ? 'carried' : `refused (${got.error})`}, logged as ${line?.reason ?? 'nothing'}; enrolled once it is back`,
    },
  }
}

async function strict(world: BenchWorld): Promise<Record<string, Measured>> {
  const { kubectl, eyes, nodes } = world
  world.progress('strict is switched on')
  const ip = await serverIp(world, 'mesh')
  const open = await holdConnection(kubectl, STRANGER, ip, 7000)
  const load = await startLoad(kubectl, STRANGER, `http://${ip}:8080/`, RATE)
  const askedAtMs = Date.now()
  await kubectl.annotate('namespace/bench-mesh', 'culvert.dev/mtls', 'strict')
  await sleep(3000)
  const { failures } = await load.stop()
  const kinds: Record<string, number> = {}
  for (const { error } of failures) kinds[error] = (kinds[error] ?? 0) + 1
  const lives = await Promise.race([open.result.then(({ how }) => how), sleep(10, 'open' as const)])
  const firstMs = Math.min(...failures.map(({ startedAtMs }) => startedAtMs)) - askedAtMs
  const node = await eyes.onNode(nodes.far, ['node', 'test/cluster/get.ts', `http://${ip}:8080/`])
  const fromNode = JSON.parse(node.stdout.toString()) as { ok: boolean; error?: string }
  const line = (await accessLog(kubectl, nodes.far)).findLast(entry => entry.reason === 'strict')
  const listed = (await admin(kubectl, nodes.far, '/plaintext')) as { connections: readonly unknown[] }[]
  const count = listed.reduce((sum, { connections }) => sum + connections.length, 0)
  await open.stop()
  await kubectl.annotate('namespace/bench-mesh', 'culvert.dev/mtls', null)
  return {
    'strict-new': {
      text: `refused after ${inSeconds(firstMs)}: ${Object.entries(kinds)
        .map(([kind, count]) => `${count} ${kind}`)
        .join(', ')}`,
      value: firstMs,
    },
    'strict-open': {
      text: `${lives === 'open' ? 'lives on' : `ended: ${lives}`}; ${count} listed by the agent (GET /plaintext), to be cut by annotation`,
    },
    'strict-node': {
      text: fromNode.ok ? 'gets in' : `refused (${fromNode.error}), logged as ${line?.reason ?? 'nothing'}`,
    },
  }
}
