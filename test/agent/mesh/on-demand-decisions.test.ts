/** Whatever the cluster: an agent that holds only what it asked for decides as one that holds everything. */
import { isDeepStrictEqual } from 'node:util'
import * as fc from 'fast-check'
import t from 'tap'
import { Router } from '../../../agent/mesh/router.ts'
import type { RouteDecision } from '../../../agent/worker/messages.ts'
import type { KubeObject } from '../../../lib/kube/objects.ts'
import { DirectAgent, DirectServer } from '../../helpers/direct-discovery.ts'
import { FakeClock } from '../../helpers/fake-clock.ts'
import {
  addressesIn,
  EXTERNAL_IPS,
  kubeClusters,
  NODE_IPS,
  POD_IPS,
  VIPS,
} from '../../helpers/kube-cluster-arbitrary.ts'
import { localPod } from '../../helpers/mesh-world.ts'
import { quietLog } from '../../helpers/quiet-log.ts'

const NODE = 'node-a'
const KNOWN = [...POD_IPS, ...VIPS, ...EXTERNAL_IPS, ...Object.values(NODE_IPS), '10.98.1.99', '198.51.100.1']
const PORTS = [80, 8080, 443, 15_008, 30_080]
const IDENTITIES = [undefined, 'spiffe://cluster.local/ns/shop/sa/p1']
const { log } = quietLog('silent')

class Agent extends DirectAgent {
  readonly clock: FakeClock
  readonly router: Router

  constructor(discovery: 'full' | 'on-demand') {
    const clock = new FakeClock()
    super({ nodeName: NODE, discovery, clock })
    this.clock = clock
    this.router = new Router({ mesh: this.mesh, nodeName: NODE, unknownHoldMs: 0, log })
  }

  /** Hears of the node's pods as they are. */
  learn(objects: readonly KubeObject[]): void {
    for (const pod of podsOfNode(objects)) {
      const enrolment = this.mesh.enrolmentOf(pod)
      if (enrolment) this.router.setLocalPod(pod, enrolment)
    }
  }

  /** Every decision about these addresses. */
  async decisions(objects: readonly KubeObject[], ips: readonly string[]): Promise<Record<string, unknown>> {
    this.learn(objects)
    const found: Record<string, unknown> = {}
    const questions = podsOfNode(objects).flatMap(({ uid, ips: own }) =>
      ips.flatMap(ip => [
        ...PORTS.map(async port => {
          const to = own.includes(ip) ? 'itself' : 'to'
          found[`${uid} ${to} ${ip}:${port}`] = sorted(await this.router.route({ podUid: uid, ip, port }))
        }),
        ...IDENTITIES.map(async identity => {
          const question = { podUid: uid, sourceIp: ip, identity, ip: own[0] ?? '10.98.1.98', port: 8080 }
          found[`${uid} from ${ip} as ${identity}`] = await this.router.admit(question)
        }),
      ]),
    )
    await Promise.all(questions)
    return found
  }

  held(): { workloads: string[]; services: string[] } {
    const { workloads, services } = this.mesh
    return {
      workloads: [...workloads.values()].map(({ uid }) => uid).sort(),
      services: [...services.values()].flatMap(({ key, service }) => (service ? [key] : [])).sort(),
    }
  }
}

function podsOfNode(objects: readonly KubeObject[]) {
  return objects.flatMap(object => {
    if (object.kind !== 'Pod' || object.spec.nodeName !== NODE || object.spec.hostNetwork) return []
    const { name, namespace = '', uid, annotations = {} } = object.metadata
    return [localPod(name, [...object.status.podIPs], { namespace, uid, annotations })]
  })
}

/** In which order endpoints came does not matter. */
function sorted(decision: RouteDecision): unknown {
  if (decision.kind !== 'forward') return decision
  const endpoints = decision.endpoints.map(endpoint => JSON.stringify(endpoint)).sort()
  return { ...decision, endpoints }
}

/** What is to be held when every port of these addresses was asked about, and no more. */
function meant(all: Agent, asked: ReadonlySet<string>): ReturnType<Agent['held']> {
  const { workloads, services, nodes } = all.mesh
  const isAsked = (ip: string) => asked.has(ip) && nodes.at(ip) === undefined
  const askedNodes = [...asked].flatMap(ip => nodes.at(ip)?.name ?? [])
  const isOnNode = ({ nodePorts }: { nodePorts: ReadonlyMap<number, number> }) =>
    askedNodes.length > 0 && PORTS.some(port => nodePorts.has(port))
  const wanted = [...services.values()].flatMap(({ key, service }) =>
    service && ([...service.vips, ...service.externalIps].some(isAsked) || isOnNode(service)) ? [key] : [],
  )
  return {
    services: wanted.sort(),
    workloads: [...workloads.values()]
      .filter(
        ({ node, ips, memberships, details }) =>
          node === NODE ||
          ips.some(isAsked) ||
          memberships.some(({ service }) => wanted.includes(service)) ||
          (askedNodes.includes(node) && details?.hostPorts.some(({ port }) => PORTS.includes(port))),
      )
      .map(({ uid }) => uid)
      .sort(),
  }
}

await t.test('decisions are those of an agent that holds everything, through all that happens', async t => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(kubeClusters, { minLength: 2, maxLength: 3 }),
      fc.subarray(KNOWN),
      fc.boolean(),
      fc.constantFrom(1, 600, undefined),
      async (clusters, some, isAwayMeanwhile, maxBytes) => {
        const ips = [...new Set([...KNOWN, ...clusters.flatMap(addressesIn)])]
        const server = await DirectServer.start(clusters[0]!)
        const full = new Agent('full')
        const lean = new Agent('on-demand')
        await Promise.all([full.connect(server), lean.connect(server, maxBytes)])
        same(lean.held(), meant(full, new Set()), 'held unasked')

        // Some addresses are talked to, and nothing but those is held: now, and when the cluster is another.
        await lean.decisions(clusters[0]!, podsOfNode(clusters[0]!).length > 0 ? some : [])
        const asked = new Set(podsOfNode(clusters[0]!).length > 0 ? some : [])
        await lean.settle()
        same(lean.held(), meant(full, asked), 'held because of questions')
        if (isAwayMeanwhile) lean.disconnect()
        server.become(clusters[1]!)
        if (isAwayMeanwhile) await lean.connect(server, maxBytes)
        await Promise.all([full.settle(), lean.settle()])
        same(lean.held(), meant(full, asked), 'held when the cluster is another')

        // What was answered before is right without being asked for again.
        for (const objects of clusters.slice(1)) {
          server.become(objects)
          await Promise.all([full.settle(), lean.settle()])
          const right = await full.decisions(objects, ips)
          same(whatWaits(await lean.decisions(objects, ips)), whatWaits(right), 'first decisions')
          same(await lean.decisions(objects, ips), right, 'later decisions')
        }

        // Nobody talks any more.
        lean.clock.advance(3_600_000)
        lean.mesh.addresses.demand!.sweep()
        await lean.settle()
        same(lean.held(), meant(full, new Set()), 'held when all was given up')
        t.strictSame(lean.mesh.addresses.demand!.sizes(), { askedPending: 0, askedFound: 0, askedAbsent: 0 })
      },
    ),
    { numRuns: 25 },
  )
})

/**
 * What is excluded, and a call to itself, waits for nobody, and who comes in not for long: the first time it may not be
 * known who the peer is.
 */
function whatWaits(decisions: Record<string, unknown>): Record<string, unknown> {
  const isWaiting = ([question, decision]: [string, unknown]) =>
    question.includes(' to ') && !JSON.stringify(decision).includes('excluded-')
  return Object.fromEntries(Object.entries(decisions).filter(isWaiting))
}

function same(found: object, wanted: object, what: string): void {
  if (isDeepStrictEqual(found, wanted)) return
  const differing = Object.entries(wanted).filter(
    ([name, value]) => !isDeepStrictEqual(value, found[name as keyof typeof found]),
  )
  const [name, value] = differing[0] ?? ['', undefined]
  throw new Error(
    `${what}, ${differing.length} differ, ${name}: ${JSON.stringify(found[name as keyof typeof found])} is not ${JSON.stringify(value)}`,
  )
}
