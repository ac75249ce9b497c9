/**
 * A program: the mesh and router of an agent that holds only what its pods talk to, beside a ca-server, asked for the
 * first time where connections go. Writes an `Asked` as JSON to its standard output.
 * Usage: node --expose-gc scale-asking.ts URL DIRECTORY PODS
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Discovery } from '../agent/mesh/discovery.ts'
import { Mesh } from '../agent/mesh/mesh.ts'
import { Router } from '../agent/mesh/router.ts'
import { NOT_ENROLLED } from '../lib/enrolment.ts'
import { createLogger } from '../lib/log.ts'
import { OWN_NODE, podIp, serviceIp } from './micro/cluster.ts'

export interface Asked {
  /** Of each first decision about a pod's address, one after the other, µs. */
  readonly podMicros: readonly number[]
  /** The same for services of ten endpoints. */
  readonly serviceMicros: readonly number[]
  /** Workloads held at the end, and the bytes that they and all that comes with them take. */
  readonly held: number
  readonly keptBytes: number
}

const PODS = 1000
const SERVICES = 100

const [url = '', directory = '', podsText = ''] = process.argv.slice(2)
const pods = Number(podsText)
const log = createLogger({}, 'silent')
const mesh = new Mesh({ nodeName: OWN_NODE, discovery: 'on-demand' })
const router = new Router({ mesh, nodeName: OWN_NODE, log })
const file = (name: string) => readFile(join(directory, name), 'utf8')
const discovery = new Discovery({
  url: new URL(url),
  node: { ip: '127.0.0.1', podName: 'bench', podNamespace: 'culvert-system' },
  kinds: mesh.kinds,
  token: () => file('token'),
  rootCa: () => file('root.pem'),
  log,
})
const stop = new AbortController()
const running = discovery.run(stop.signal)
await mesh.whenSynced(stop.signal)
const podUid = 'uid-local'
const pod = { uid: podUid, namespace: 'ns-0', name: 'local', serviceAccount: 'local', ips: ['10.255.0.2'] }
router.setLocalPod(
  { ...pod, annotations: {}, netns: '/proc/self/ns/net', terminating: false },
  { ...NOT_ENROLLED, mesh: true },
)
const before = used()
const podMicros = await firstMicros(at => podIp((at * 7919) % pods), Math.min(PODS, pods), 8080)
const services = Math.ceil(pods / 10)
const serviceMicros = await firstMicros(
  at => serviceIp((at * 7919) % services),
  Math.min(SERVICES, services),
  80,
)
const asked: Asked = {
  podMicros,
  serviceMicros,
  held: mesh.workloads.size,
  keptBytes: Math.max(0, used() - before),
}
process.stdout.write(`${JSON.stringify(asked)}\n`)
stop.abort()
await running

async function firstMicros(ipAt: (at: number) => string, count: number, port: number): Promise<number[]> {
  const micros: number[] = []
  for (let at = 0; at < count; at++) {
    const startMs = performance.now()
    const decision = await router.route({ podUid, ip: ipAt(at), port })
    micros.push((performance.now() - startMs) * 1000)
    if (decision.kind !== 'forward' || decision.endpoints[0]?.via.kind !== 'hbone')
      throw new Error(`${ipAt(at)} is not reached through a tunnel: ${JSON.stringify(decision)}`)
  }
  return micros
}

/** Bytes in use, once what is not has been collected. */
function used(): number {
  globalThis.gc?.()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}
