import t from 'tap'
import { UncapturedCounters, type CountedPod } from '../../../agent/pods/uncaptured.ts'
import type { Counters } from '../../../agent/redirect/counters.ts'
import { quietLog } from '../../helpers/quiet-log.ts'

const LOCAL_POD = {
  uid: 'u1',
  namespace: 'shop',
  name: 'client',
  serviceAccount: 'client',
  ips: ['10.98.1.2'],
  annotations: {},
  netns: '/run/netns/client',
  terminating: false,
}

/** A pod whose kernel counters and whose agent's word are what the test says. */
function observed(isAdopted = false) {
  const { log, lines } = quietLog()
  const counted: Record<string, number> = {}
  const pod: { -readonly [K in keyof CountedPod]: CountedPod[K] } = { pod: LOCAL_POD, netnsFd: 3, isAdopted }
  let kernel: Counters = {}
  return {
    pod,
    lines,
    counted,
    set kernel(counters: Counters) {
      kernel = counters
    },
    counters: new UncapturedCounters({
      pods: () => [pod],
      metrics: { uncaptured: (reason, packets) => (counted[reason] = (counted[reason] ?? 0) + packets) },
      log,
      readCounters: async () => kernel,
    }),
  }
}

await t.test('what the rules count is added up under its word', async t => {
  const it = observed()
  it.kernel = {
    loopback: 2n,
    'udp-dns/outbound': 3n,
    'captured/outbound': 9n,
    'excluded-port/inbound/7000': 1n,
    'excluded-port/outbound/53': 1n,
    'excluded-cidr/outbound/10.0.0.0/8': 4n,
    'strict/inbound': 5n,
  }
  await it.counters.read()
  await it.counters.read()
  t.strictSame(it.counted, { loopback: 2, 'udp-dns': 3, 'excluded-port': 2, 'excluded-cidr': 4, drift: 5 })
})

await t.test('rules that were put back count from zero, and nothing is counted twice', async t => {
  const it = observed()
  for (const loopback of [5n, 7n, 1n, 4n]) {
    it.kernel = { loopback }
    await it.counters.read()
  }
  t.strictSame(it.counted, { loopback: 11 })
})

await t.test('a pod that left the mesh and came back counts from zero', async t => {
  const it = observed()
  it.kernel = { loopback: 5n, 'marked/outbound': 8n }
  it.counters.dialled(0, { u1: 8 })
  await it.counters.read()
  it.pod.netnsFd = undefined
  it.counters.dialled(0, {})
  await it.counters.read()
  it.pod.netnsFd = 4
  it.kernel = { loopback: 6n, 'marked/outbound': 2n }
  it.counters.dialled(0, { u1: 2 })
  await it.counters.read()
  await it.counters.read()
  t.strictSame(it.counted, { loopback: 11 })
})

await t.test('what an agent before this one has counted is not counted again', async t => {
  const it = observed(true)
  it.kernel = { loopback: 5n, 'marked/outbound': 1000n }
  it.counters.dialled(0, { u1: 1 })
  await it.counters.read()
  it.kernel = { loopback: 6n, 'marked/outbound': 1003n }
  it.counters.dialled(0, { u1: 4 })
  await it.counters.read()
  await it.counters.read()
  t.strictSame(it.counted, { loopback: 1 })
  it.kernel = { loopback: 6n, 'marked/outbound': 1005n }
  await it.counters.read()
  await it.counters.read()
  t.strictSame(it.counted, { loopback: 1, 'forged-mark': 2 })
})

await t.test('a thread that tells later than the kernel counts makes nobody a forger', async t => {
  const it = observed()
  for (let dialled = 0; dialled < 1000; dialled += 100) {
    it.counters.dialled(0, { u1: dialled })
    it.kernel = { 'marked/outbound': BigInt(dialled + 90) }
    await it.counters.read()
  }
  t.strictSame(it.counted, {})
  t.strictSame(it.lines, [])
})

await t.test('marks that are not the agent’s are counted once, and said', async t => {
  const it = observed()
  it.counters.dialled(0, { u1: 6 })
  it.counters.dialled(1, { u1: 4 })
  it.kernel = { 'marked/outbound': 13n }
  for (let reading = 0; reading < 3; reading++) await it.counters.read()
  t.strictSame(it.counted, { 'forged-mark': 3 })
  t.match(it.lines, [{ level: 'warn', pod: 'shop/client', connections: 3 }])
})
