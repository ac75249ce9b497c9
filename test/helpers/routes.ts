/** A small mesh with a client in it, and its decisions in few words. */
import { Router } from '../../agent/mesh/router.ts'
import type { Endpoint, RouteDecision } from '../../agent/worker/messages.ts'
import { NOT_ENROLLED, type Enrolment } from '../../lib/enrolment.ts'
import { localPod, MeshWorld, serviceKey } from './mesh-world.ts'
import { quietLog } from './quiet-log.ts'

const ENROLLED: Enrolment = { ...NOT_ENROLLED, mesh: true }
export const ECHO = serviceKey('shop', 'echo')
export const CLIENT = localPod('client', ['10.1.0.2', 'fd01::2'])

/** A router for one enrolled pod on node-a, and what it is asked by. */
export function setUp(world: MeshWorld, enrolment: Partial<Enrolment> = {}, unknownHoldMs = 20) {
  const router = new Router({ mesh: world.mesh, nodeName: 'node-a', unknownHoldMs, log: quietLog().log })
  router.setLocalPod(CLIENT, { ...ENROLLED, ...enrolment })
  return (ip: string, port: number) => router.route({ podUid: CLIENT.uid, ip, port })
}

/** Two nodes, an enrolled server, one that is not, and a service over both. */
export function shop(options = {}): MeshWorld {
  return new MeshWorld(options)
    .node('node-a', ['192.168.0.1'], ['10.1.0.0/24', 'fd01::/64'])
    .node('node-b', ['192.168.0.2'], ['10.2.0.0/24', 'fd02::/64'])
    .pod({ name: 'server', ips: ['10.2.0.2', 'fd02::2'], services: { [ECHO]: { 80: 8080 } } })
    .pod({ name: 'old', namespace: 'legacy', ips: ['10.2.0.9'], hbone: false })
    .service({ name: 'echo', vips: ['10.96.0.10', 'fd96::10'], ports: { 80: 8080 } })
    .synced()
}

export function endpoints(decision: RouteDecision): readonly Endpoint[] {
  if (decision.kind === 'refuse') throw new Error(`refused: ${decision.reason}: ${decision.detail}`)
  return decision.endpoints
}

export const places = (decision: RouteDecision) => endpoints(decision).map(({ ip, port }) => `${ip}|${port}`)

/** The reason of a decision that is one place in the clear; else the decision, to be shown. */
export function plaintextReason(decision: RouteDecision) {
  const [only, ...more] = endpoints(decision)
  return more.length === 0 && only!.via.kind === 'tcp' ? only!.via.reason : decision
}
