import t from 'tap'
import { canonicalIp, formatAddress } from '../../lib/address.ts'
import { NOT_ENROLLED, type Enrolment } from '../../lib/enrolment.ts'
import { applyRedirect, readCounters } from '../../agent/redirect/apply.ts'
import { forgedMarks } from '../../agent/redirect/counters.ts'
import { askFrom, connectAsAgent, standInAgent } from '../helpers/capture.ts'
import { connectFrom, inPod, makePods, serve } from '../helpers/pods.ts'
import { readAll } from '../helpers/tcp.ts'

const enrolment = (more: Partial<Enrolment> = {}): Enrolment => ({ ...NOT_ENROLLED, mesh: true, ...more })

await t.test('new connections go to the agent both ways, which learns where they were going', async t => {
  const [pod, outside] = makePods(t, ['pod', 'outside'])
  await standInAgent(t, pod!)
  await serve(t, pod!, 8080, socket => socket.end('the application'))
  await applyRedirect(pod!.fd, enrolment())
  for (const [there, here] of [
    [outside!.ip, pod!.ip],
    [outside!.ip6, pod!.ip6],
  ] as const) {
    t.equal(await askFrom(t, pod!, there, 8080), `outbound ${formatAddress(there, 8080)}`)
    t.equal(await askFrom(t, outside!, here, 8080), `inbound ${formatAddress(here, 8080)}`)
    t.equal(await askFrom(t, outside!, here, 15008), `hbone ${formatAddress(here, 15008)}`)
    t.equal(await askFrom(t, outside!, here, 15001), `inbound ${formatAddress(here, 15001)}`)
  }
  t.match(await readCounters(pod!.fd), {
    'captured/outbound': 2n,
    'captured/inbound': 4n,
    'hbone/inbound': 2n,
    'pre-enrolment/outbound': 0n,
    'pre-enrolment/inbound': 0n,
    loopback: 0n,
  })
})

await t.test('what nobody listens for is refused by the kernel, in every mode', async t => {
  const [pod, outside] = makePods(t, ['pod', 'outside'])
  await standInAgent(t, pod!)
  for (const strictInbound of [false, true]) {
    await applyRedirect(pod!.fd, enrolment({ strictInbound }))
    for (const here of [pod!.ip, pod!.ip6])
      await t.rejects(connectFrom(t, outside!, here, 8080), { code: 'ECONNREFUSED' })
    t.match(await readCounters(pod!.fd), { 'captured/inbound': 0n })
  }
  t.match(await readCounters(pod!.fd), { 'strict/inbound': 0n }, 'that is no drift')
  await serve(t, pod!, 8080, socket => socket.end('the application'))
  t.equal(await askFrom(t, outside!, pod!.ip, 8080), `inbound ${formatAddress(pod!.ip, 8080)}`)
})

await t.test('loopback and the own address stay in the pod, counted', async t => {
  const [pod] = makePods(t, ['pod'])
  await standInAgent(t, pod!)
  await serve(t, pod!, 8080, socket => socket.end('the application'))
  await applyRedirect(pod!.fd, enrolment())
  for (const host of ['127.0.0.1', '::1', pod!.ip, pod!.ip6])
    t.equal(await askFrom(t, pod!, host, 8080), 'the application')
  t.match(await readCounters(pod!.fd), { loopback: 4n, 'captured/outbound': 0n, 'captured/inbound': 0n })
})

await t.test('what is excluded passes, each exclusion counted by name', async t => {
  const [pod, outside] = makePods(t, ['pod', 'outside'])
  await standInAgent(t, pod!)
  for (const port of [5432, 80]) await serve(t, outside!, port, socket => socket.end('outside'))
  await serve(t, pod!, 9090, socket => socket.end('pod'))
  await applyRedirect(
    pod!.fd,
    enrolment({
      excludeInboundPorts: [9090],
      excludeOutboundPorts: [5432],
      excludeOutboundCidrs: [`${outside!.ip6}/128`],
    }),
  )
  t.equal(await askFrom(t, pod!, outside!.ip, 5432), 'outside')
  t.equal(await askFrom(t, pod!, outside!.ip6, 80), 'outside')
  t.equal(await askFrom(t, outside!, pod!.ip, 9090), 'pod')
  t.equal(await askFrom(t, outside!, pod!.ip6, 9090), 'pod')
  t.match(await askFrom(t, pod!, outside!.ip, 80), /^outbound/)
  t.match(await readCounters(pod!.fd), {
    'excluded-port/outbound/5432': 1n,
    [`excluded-cidr/outbound/${outside!.ip6}/128`]: 1n,
    'excluded-port/inbound/9090': 2n,
    'captured/outbound': 1n,
  })
})

await t.test("the agent's own mark passes and is counted, so that a forged one shows", async t => {
  const [pod, outside] = makePods(t, ['pod', 'outside'])
  await serve(t, outside!, 8080, socket => socket.end('outside'))
  await applyRedirect(pod!.fd, enrolment())
  for (let times = 0; times < 3; times++)
    t.equal(
      (await readAll(await connectAsAgent(t, pod!, { host: outside!.ip, port: 8080 }))).toString(),
      'outside',
    )
  t.equal(forgedMarks(await readCounters(pod!.fd), 2n), 1n)
})

await t.test('datagrams pass, and name look-ups are counted apart', async t => {
  const [pod, outside] = makePods(t, ['pod', 'outside'])
  await applyRedirect(pod!.fd, enrolment())
  for (const [to, port] of [
    [outside!.ip, 53],
    [outside!.ip6, 53],
    [outside!.ip, 9999],
  ] as const)
    inPod(pod!, process.execPath, [
      '-e',
      `const s = require('node:dgram').createSocket('udp${to.includes(':') ? 6 : 4}'); s.send('x', ${port}, '${to}', () => s.close())`,
    ])
  t.match(await readCounters(pod!.fd), { 'udp-dns/outbound': 2n, 'udp/outbound': 1n })
})

await t.test(
  "the agent reaches the application from the client's own address, and hears its answer",
  async t => {
    const [pod, outside] = makePods(t, ['pod', 'outside'])
    const seen: string[] = []
    await serve(t, pod!, 8080, socket => {
      seen.push(canonicalIp(socket.remoteAddress!))
      socket.pipe(socket)
    })
    await applyRedirect(pod!.fd, enrolment({ strictInbound: true, requireOutbound: true }))
    for (const [host, client] of [
      [pod!.ip, outside!.ip],
      [pod!.ip6, outside!.ip6],
      [pod!.ip, '198.51.100.7'],
    ] as const) {
      const socket = await connectAsAgent(t, pod!, { host, port: 8080 }, client)
      socket.end('x'.repeat(1_000_000))
      t.equal((await readAll(socket)).length, 1_000_000)
      t.equal(seen.pop(), client)
    }
    t.match(await readCounters(pod!.fd), { 'strict/inbound': 0n, 'require/outbound': 0n })
  },
)
