/** The indices against a model that keeps a plain list and looks through all of it. */
import * as fc from 'fast-check'
import t from 'tap'
import { MeshWorld, serviceKey, uidOf, type PodShape } from '../../helpers/mesh-world.ts'
import { NetworkMode } from '../../../lib/proto/gen/istio/workload_pb.js'

const NAMES = ['a', 'b', 'c', 'd']
const IPS = ['10.0.0.1', '10.0.0.2', '10.0.0.3', 'fd00::1']
const SERVICES = ['s', 't', 'u']
const VIPS = ['10.96.0.1', '10.96.0.2', '10.97.0.0/16', '10.97.1.0/24']
const DIALLED = ['10.96.0.1', '10.96.0.2', '10.97.1.5', '10.97.2.5', '10.98.0.1']

const podStep = fc.record({
  kind: fc.constant('pod' as const),
  name: fc.constantFrom(...NAMES),
  ips: fc.uniqueArray(fc.constantFrom(...IPS), { maxLength: 2 }),
  services: fc.uniqueArray(fc.constantFrom(...SERVICES), { maxLength: 2 }),
  podUid: fc.constantFrom('1', '2'),
  isTerminating: fc.boolean(),
  isHostNetwork: fc.boolean(),
})
const serviceStep = fc.record({
  kind: fc.constant('service' as const),
  name: fc.constantFrom(...SERVICES),
  vips: fc.uniqueArray(fc.constantFrom(...VIPS), { maxLength: 3 }),
})
const removeStep = fc.record({
  kind: fc.constantFrom('remove-pod' as const, 'remove-service' as const),
  at: fc.nat(3),
})

type PodStep = typeof podStep extends fc.Arbitrary<infer T> ? T : never

/** A pod in the model: when each of its addresses came to it. */
interface ModelPod extends PodStep {
  readonly arrivals: ReadonlyMap<string, number>
}

class Model {
  readonly pods = new Map<string, ModelPod>()
  readonly services = new Map<string, string[]>()
  #clock = 0

  putPod(step: PodStep): void {
    const before = this.pods.get(step.name)
    const isSamePod = before?.podUid === step.podUid
    const arrivals = new Map<string, number>()
    if (!step.isHostNetwork)
      for (const ip of step.ips) {
        const kept = isSamePod ? before?.arrivals.get(ip) : undefined
        arrivals.set(ip, kept ?? ++this.#clock)
      }
    this.pods.set(step.name, { ...step, arrivals })
  }

  ownerOf(ip: string): string | undefined {
    const owners = [...this.pods.values()].filter(pod => pod.arrivals.has(ip))
    owners.sort(
      (a, b) =>
        Number(b.isTerminating) - Number(a.isTerminating) || a.arrivals.get(ip)! - b.arrivals.get(ip)!,
    )
    return owners.at(-1)?.name
  }

  isHostAt(ip: string): boolean {
    return [...this.pods.values()].some(pod => pod.isHostNetwork && pod.ips.includes(ip))
  }

  membersOf(service: string): string[] {
    return [...this.pods.values()]
      .filter(pod => pod.services.includes(service))
      .map(pod => pod.name)
      .sort()
  }

  /** All services are of one namespace, so the first by name of the longest match. */
  serviceAt(ip: string): string | undefined {
    const matches = (vip: string) =>
      vip === ip ||
      (vip.endsWith('.0/16') && ip.startsWith('10.97.')) ||
      (vip.endsWith('.0/24') && ip.startsWith('10.97.1.'))
    const length = (vip: string) => Number(vip.split('/')[1] ?? 32)
    const hits = [...this.services].flatMap(([name, vips]) =>
      vips.filter(matches).map(vip => ({ name, length: length(vip) })),
    )
    hits.sort((a, b) => b.length - a.length || (a.name < b.name ? -1 : 1))
    return hits[0]?.name
  }
}

await t.test(
  'the indices say what a walk through everything says, after any sequence of updates',
  async t => {
    fc.assert(
      fc.property(fc.array(fc.oneof(podStep, serviceStep, removeStep), { maxLength: 40 }), steps => {
        const world = new MeshWorld()
        const { workloads, services } = world.mesh
        const model = new Model()
        for (const step of steps) {
          switch (step.kind) {
            case 'pod': {
              const shape: PodShape = {
                name: step.name,
                ips: step.ips,
                hbone: false,
                services: Object.fromEntries(
                  step.services.map(name => [serviceKey('shop', name), { 80: 80 }]),
                ),
                info: { podUid: step.podUid, terminating: step.isTerminating },
                more: { networkMode: step.isHostNetwork ? NetworkMode.HOST_NETWORK : NetworkMode.STANDARD },
              }
              world.pod(shape)
              model.putPod(step)
              break
            }
            case 'service':
              world.service({ name: step.name, vips: step.vips, ports: { 80: 80 } })
              model.services.set(step.name, step.vips)
              break
            case 'remove-pod':
              world.removePod(NAMES[step.at]!)
              model.pods.delete(NAMES[step.at]!)
              break
            case 'remove-service': {
              const name = SERVICES[step.at % SERVICES.length]!
              world.remove('istio.workload.Address', serviceKey('shop', name))
              model.services.delete(name)
              break
            }
          }
        }
        t.equal(workloads.size, model.pods.size)
        t.equal(services.size, model.services.size)
        for (const name of NAMES)
          t.equal(workloads.byUid(uidOf('shop', name))?.name, model.pods.get(name)?.name)
        for (const ip of IPS) {
          t.equal(workloads.byIp(ip)?.name, model.ownerOf(ip), ip)
          t.equal(workloads.hostNetworkAt(ip) !== undefined, model.isHostAt(ip), ip)
        }
        for (const name of SERVICES) {
          const entry = services.byKey(serviceKey('shop', name))
          const members = [...(entry?.members.values() ?? [])].map(member => member.workload.name).sort()
          t.strictSame(members, model.membersOf(name))
          for (const { workload } of entry?.members.values() ?? [])
            t.equal(workload, workloads.byUid(workload.uid), 'a member is the workload as it is now')
          t.equal(entry?.service !== undefined, model.services.has(name))
        }
        for (const ip of DIALLED) {
          const found = services.byVip(ip, 'shop')
          t.equal(typeof found === 'object' ? found.service?.info.name : found, model.serviceAt(ip), ip)
        }
      }),
      { numRuns: 200 },
    )
  },
)

await t.test('a resource of one name is a workload or a service, whichever came last', async t => {
  const world = new MeshWorld().service({ name: 'echo', vips: ['10.96.0.1'] })
  const name = serviceKey('shop', 'echo')
  world.pod({ name: 'odd', more: { uid: name } })
  t.equal(world.mesh.services.size, 0)
  t.equal(world.mesh.workloads.size, 1)
  world.service({ name: 'echo', vips: ['10.96.0.1'] })
  t.equal(world.mesh.services.size, 1)
  t.equal(world.mesh.workloads.size, 0)
})

await t.test('addresses of another network are not found, workloads of it are kept', async t => {
  const world = new MeshWorld({ network: 'ours' })
    .pod({ name: 'near', ips: ['10.0.0.1'], more: { network: 'ours' } })
    .pod({ name: 'far', ips: ['10.0.0.2'], more: { network: 'theirs' } })
    .service({ name: 'echo', vips: ['10.96.0.1'] })
  t.equal(world.mesh.workloads.byIp('10.0.0.1')?.name, 'near')
  t.equal(world.mesh.workloads.byIp('10.0.0.2'), undefined)
  t.equal(world.mesh.workloads.size, 2)
  t.equal(world.mesh.services.byVip('10.96.0.1', 'shop'), undefined)
})
