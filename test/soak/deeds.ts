/** Carries out what is planned; each waits until the mesh is whole again. */
import { setTimeout as sleep } from 'node:timers/promises'
import { httpGet, until } from '../../lab/demo/facts.ts'
import type { Lab } from '../../lab/lab.ts'
import type { DeedKind, PlannedDeed } from './schedule.ts'

/** What was done, and when it was over (Unix ms). */
export interface Deed {
  readonly kind: DeedKind
  readonly node: string
  readonly beganAtMs: number
  /** When the process was signalled. */
  readonly struckAtMs: number
  readonly endedAtMs: number
}

const WHOLE_AGAIN_MS = 20_000
/** Long enough for a renewal that fails. */
const CA_AWAY_MS = 2000

let churned = 0

/** Throws when the mesh does not become whole again. */
export async function carryOut(lab: Lab, { kind, node }: PlannedDeed): Promise<Deed> {
  const beganAtMs = Date.now()
  const struckAtMs = await DEEDS[kind](lab, node)
  return { kind, node, beganAtMs, struckAtMs, endedAtMs: Date.now() }
}

/** Each gives the time at which it struck. */
const DEEDS: Readonly<Record<DeedKind, (lab: Lab, node: string) => Promise<number>>> = {
  'kill-agent': async (lab, node) => {
    await lab.killAgent(node)
    const struckAtMs = Date.now()
    await allEnrolled(lab, node)
    return struckAtMs
  },
  'replace-agent': async (lab, node) => {
    const struckAtMs = Date.now()
    await lab.replaceAgent(node)
    return struckAtMs
  },
  churn: async (lab, node) => {
    const struckAtMs = Date.now()
    const name = `churn-${++churned}`
    await lab.addPods(churnPod(name, node))
    const [ip = ''] = (await lab.pod(name)).ips
    // Heard of by everybody or not: the first connections are carried either way, to it and from it.
    await httpGet(lab, 'client', `http://${ip}:8080/`)
    await httpGet(lab, name, `http://${(await lab.pod('server')).ips[0]}:8080/`)
    await lab.delPod(name, 1)
    return struckAtMs
  },
  'stop-ca': async lab => {
    const struckAtMs = Date.now()
    await lab.stopCaServer()
    await sleep(CA_AWAY_MS)
    await lab.startCaServer()
    await caServerRuns(lab)
    return struckAtMs
  },
  'kill-ca': async lab => {
    await lab.kill('ca-server')
    const struckAtMs = Date.now()
    await caServerRuns(lab)
    return struckAtMs
  },
}

function churnPod(name: string, node: string): string {
  return `apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: shop, annotations: { culvert.dev/lab-node: ${node} } }
spec:
  serviceAccountName: server
  containers: [{ name: app, image: culvert.dev/lab-app }]
`
}

async function allEnrolled(lab: Lab, node: string): Promise<void> {
  await until(`the next agent of ${node} and all its pods`, WHOLE_AGAIN_MS, async () => {
    const { nodes, pods } = await lab.status()
    const answers = nodes.find(({ name }) => name === node)?.agent?.answers
    const here = pods.filter(pod => pod.node === node && pod.namespace === 'shop')
    return (answers && here.every(({ mesh }) => mesh === 'enrolled')) || undefined
  })
}

/** It runs, and both agents have found it. */
export async function caServerRuns(lab: Lab): Promise<void> {
  await until('a ca-server that both agents have found', WHOLE_AGAIN_MS, async () => {
    const { caServer, nodes } = await lab.status()
    if (caServer.pid === undefined) return undefined
    const isFound = await Promise.all(
      nodes.map(async ({ name }) => /^culvert_discovery_connected 1$/m.test(await metricsText(lab, name))),
    )
    return isFound.every(Boolean) || undefined
  })
}

/** A node's metrics as text; empty while its agent does not answer. */
export async function metricsText(lab: Lab, node: string): Promise<string> {
  const ran = await lab.execOnNode(node, ['curl', '-sS', '-m', '5', 'http://127.0.0.1:15020/metrics'])
  return ran.stdout.toString()
}
