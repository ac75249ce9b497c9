import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { inspectRedirect } from '../../agent/redirect/apply.ts'
import { becomes } from '../helpers/becomes.ts'
import { nodePods, type NodePods } from '../helpers/node-pods.ts'
import { canMakeGroups, podProcess } from '../helpers/pod-processes.ts'
import { connectFrom, failureFrom, inPod, makePods, serve, type TestPod } from '../helpers/pods.ts'
import { readAll } from '../helpers/tcp.ts'

const PATIENCE = { withinMs: 2000, unknownMs: 2000 }

interface World extends NodePods {
  readonly client: TestPod
  readonly server: TestPod
  /** Of which the agent never hears. */
  readonly outside: TestPod
  /** Connections that the server's application has accepted. */
  readonly accepted: string[]
}

/** A server that is in the mesh already, and a client's namespace of which nobody has heard. */
async function world(t: Test, options?: Parameters<typeof nodePods>[1]): Promise<World> {
  const [client, server, outside] = makePods(t, ['client', 'server', 'outside']) as [
    TestPod,
    TestPod,
    TestPod,
  ]
  const node = await nodePods(t, options)
  const accepted: string[] = []
  await serve(t, server, 8080, socket => {
    accepted.push(socket.remoteAddress ?? '')
    socket.end('hello')
  })
  node.world.namespace('shop', { mesh: true }).synced()
  await node.pods.synced(new Set())
  const pod = node.pod(server)
  node.tell(pod)
  await node.pods.podSeen(pod)
  await node.state(pod.uid, 'enrolled')
  return Object.assign(node, { client, server, outside, accepted })
}

await t.test(
  'a pod whose service account is not known is captured at once; what it says waits, and is carried in a tunnel',
  async t => {
    const node = await world(t)
    const pod = node.pod(node.client)
    const seen = node.pods.podSeen(pod)
    t.equal(await node.pods.podSafe(pod.uid, PATIENCE), 'safe')
    await seen
    t.match(node.pods.list()[1], {
      state: 'pending',
      detail: 'captured; waiting for discovery to tell its service account',
      serviceAccount: undefined,
    })
    t.match(node.reported.get(pod.uid), { state: 'PENDING' })
    const socket = await connectFrom(t, node.client, node.server.ip, 8080)
    const answer = readAll(socket)
    t.equal(await Promise.race([answer, sleep(200, 'nothing')]), 'nothing')
    t.strictSame(node.accepted, [], 'nothing has reached the server')

    node.tell(pod, { more: { node: 'node-a', serviceAccount: 'billing' } })
    t.equal((await answer).toString(), 'hello')
    t.strictSame(node.accepted, [`::ffff:${node.client.ip}`])
    await node.state(pod.uid, 'enrolled')
    t.equal(node.pods.get(pod.uid)?.serviceAccount, 'billing')
    socket.end()
    await becomes(() => node.carried.some(line => line.includes('sa/billing')))
    t.ok(node.carried.every(line => line.includes('"reason":"mtls"')))
  },
)

await t.test(
  'when nobody tells who a pod is, what needs no name is carried after a while, and what does is refused',
  async t => {
    const node = await world(t, { unnamedAfterMs: 100, certificateWaitMs: 500 })
    await serve(t, node.client, 8080, socket => socket.end('hello from a stranger'))
    const { outside } = node
    const pod = node.pod(node.client)
    await node.pods.podSeen(pod)
    const toEnrolled = failureFrom(t, node.client, node.server.ip, 8080)
    await serve(t, outside, 8080, socket => socket.end('hello from outside'))
    const toOutside = await readAll(await connectFrom(t, node.client, outside.ip, 8080))
    t.equal(toOutside.toString(), 'hello from outside')
    const inside = await readAll(await connectFrom(t, outside, node.client.ip, 8080))
    t.equal(inside.toString(), 'hello from a stranger')
    t.match(node.pods.list()[1], { state: 'pending', detail: /waiting for discovery to tell/ })

    await serve(t, outside, 8081, socket => socket.pipe(socket))
    const held = await connectFrom(t, node.client, outside.ip, 8081)
    held.write('before')
    await once(held, 'data')
    node.tell(pod, { more: { node: 'node-a', serviceAccount: 'billing' } })
    await node.state(pod.uid, 'enrolled')
    held.end(' and after')
    t.equal((await readAll(held)).toString(), ' and after', 'what is open goes on')
    const named = await connectFrom(t, node.client, node.server.ip, 8080)
    t.equal((await readAll(named)).toString(), 'hello')
    named.end()
    t.equal(await toEnrolled, 'ECONNRESET')
    const logged = (...words: string[]) =>
      becomes(() => node.carried.some(line => words.every(word => line.includes(word))))
    await logged('sa/billing', '"reason":"mtls"')
    await logged('no certificate for a pod whose service account is not known')
  },
)

await t.test(
  'a client is answered though it uses a port that a connection made in its name has already',
  { timeout: 20_000 },
  async t => {
    const node = await world(t)
    const ports: number[] = []
    await serve(t, node.server, 8081, socket => {
      ports.push(socket.remotePort!)
      socket.pipe(socket)
    })
    for (const host of [node.server.ip, node.server.ip6]) {
      const held = await connectFrom(t, node.outside, host, 8081)
      held.write('first')
      await once(held, 'data')
      const taken = ports.pop()
      t.not(taken, held.localPort, 'the kernel has chosen')
      const second = await connectFrom(t, node.outside, host, 8081, taken)
      second.end('second')
      t.equal((await readAll(second)).toString(), 'second')
      held.end('and more')
      t.equal((await readAll(held)).toString(), 'and more', 'the first is not touched')
    }
  },
)

await t.test('its service account stays known when discovery no longer tells of it', async t => {
  const node = await world(t)
  const pod = node.pod(node.client)
  node.tell(pod)
  await node.pods.podSeen(pod)
  await node.state(pod.uid, 'enrolled')
  node.world.removePod('client')
  await new Promise(setImmediate)
  await node.pods.settled()
  t.match(node.pods.list()[1], { state: 'enrolled', serviceAccount: 'client' })
  t.equal((await readAll(await connectFrom(t, node.client, node.server.ip, 8080))).toString(), 'hello')
})

await t.test(
  'a pod of which nobody knows whether it is in the mesh is neither captured nor held',
  async t => {
    const node = await world(t)
    const pod = node.pod(node.client, { namespace: 'far' })
    await node.pods.podSeen(pod)
    t.equal(await node.pods.podSafe(pod.uid, { withinMs: 5000, unknownMs: 20 }), 'unknown')
    t.match(node.pods.list()[1], { state: 'unknown', detail: /annotations of namespace far/ })
    t.match(node.reported.get(pod.uid), { state: 'PENDING' }, 'and it is said so')
    t.equal((await readAll(await connectFrom(t, node.client, node.server.ip, 8080))).toString(), 'hello')
    const safe = node.pods.podSafe(pod.uid, PATIENCE)
    node.world.namespace('far', { mesh: true })
    t.equal(await safe, 'safe', 'who waits hears of it when discovery has told')
    t.strictSame((await inspectRedirect(node.client.fd, node.pods.get(pod.uid)!.enrolment!)).drift, [])
  },
)

await t.test(
  'a pod that says itself that it is in the mesh is captured before its namespace is known',
  async t => {
    const node = await world(t)
    const pod = node.pod(node.client, { namespace: 'far', annotations: { 'culvert.dev/mesh': 'enabled' } })
    await node.pods.podSeen(pod)
    t.equal(await node.pods.podSafe(pod.uid, PATIENCE), 'safe')
    t.match(node.pods.get(pod.uid)?.enrolment, { mesh: true })
  },
)

await t.test(
  'a pod that cannot be captured is late, and its runtime is not kept waiting for ever',
  async t => {
    const node = await world(t)
    const pod = node.pod(node.client, { ips: ['10.99.99.99'] })
    await node.pods.podSeen(pod)
    t.equal(await node.pods.podSafe(pod.uid, { withinMs: 300, unknownMs: 0 }), 'late')
    t.match(node.pods.list()[1], { state: 'pending', detail: /does not own 10\.99\.99\.99/ })
    const safe = node.pods.podSafe(pod.uid, PATIENCE)
    await node.pods.podSeen({ ...pod, ips: [node.client.ip], caveat: 'captured after its start' })
    t.equal(await safe, 'safe')
    node.tell(pod)
    await node.state(pod.uid, 'enrolled', /^captured after its start$/)
    t.match(node.reported.get(pod.uid), { state: 'ENROLLED', detail: 'captured after its start' })
  },
)

await t.test(
  'a process in the namespace tells whose it is',
  { skip: !canMakeGroups && 'no control groups' },
  async t => {
    const node = await world(t)
    const uid = 'd7f9e4f0-0000-4000-8000-000000000001'
    const other = 'd7f9e4f0-0000-4000-8000-000000000002'
    const stranger = await podProcess(t, node.client.netns, other)
    const pod = node.pod(node.client, { uid, pid: stranger.pid })
    await node.pods.podSeen(pod)
    const is = (detail: RegExp) => t.match(node.pods.get(uid)?.status, { state: 'pending', detail })
    is(/process \d+ in it is of the pod with uid d7f9e4f0-0000-4000-8000-000000000002/)
    const elsewhere = await podProcess(t, node.server.netns, uid)
    await node.pods.podSeen({ ...pod, pid: elsewhere.pid })
    t.equal(await node.pods.podSafe(uid, { withinMs: 200, unknownMs: 0 }), 'late')
    is(/process \d+, which is said to be in it, is in another one/)
    const own = await podProcess(t, node.client.netns, uid)
    await node.pods.podSeen({ ...pod, pid: own.pid })
    t.equal(await node.pods.podSafe(uid, PATIENCE), 'safe')
  },
)

await t.test('a process that is of no pod, or has ended, says nothing of the namespace', async t => {
  const node = await world(t)
  for (const pid of [process.pid, 0x7fff_fffe]) {
    const pod = node.pod(node.client, { pid })
    await node.pods.podSeen(pod)
    t.equal(await node.pods.podSafe(pod.uid, PATIENCE), 'safe')
    await node.pods.podGone(pod.uid)
  }
})

await t.test("the agent's own namespace is nobody's", async t => {
  const node = await world(t)
  const pod = node.pod(node.client, { ips: [], netns: '/proc/self/ns/net' })
  await node.pods.podSeen(pod)
  t.match(node.pods.list()[1], { state: 'pending', detail: /it is the agent's own/ })
})

await t.test('a pod that is given another sandbox begins anew in its namespace', async t => {
  const [other] = makePods(t, ['other']) as [TestPod]
  const node = await world(t)
  const pod = node.pod(node.client)
  node.tell(pod)
  await node.pods.podSeen(pod)
  await node.state(pod.uid, 'enrolled')
  const held = await connectFrom(t, node.client, node.server.ip, 8081)
  const moved = node.pod(other, { uid: pod.uid, name: pod.name })
  node.tell(moved)
  await node.pods.podSeen(moved)
  t.equal(await node.pods.podSafe(pod.uid, PATIENCE), 'safe')
  await node.state(pod.uid, 'enrolled')
  t.match(node.pods.list()[1], { netns: moved.netns, ips: moved.ips })
  t.strictSame((await inspectRedirect(other.fd, node.pods.get(pod.uid)!.enrolment!)).drift, [])
  t.strictSame(node.keeper.holds(pod.uid), true)
  if (!held.destroyed) await once(held, 'close')
  t.pass('what was open in the first one is over')
})

await t.test('peers are told that a pod ends as soon as discovery says so, once', async t => {
  const node = await world(t)
  const pod = node.pod(node.client)
  node.tell(pod)
  await node.pods.podSeen(pod)
  await node.state(pod.uid, 'enrolled')
  const told: string[] = []
  const { threads } = node
  const tell = threads.tell.bind(threads)
  threads.tell = message => {
    if (message.type === 'goaway') told.push(message.podUid)
    tell(message)
  }
  node.tell(pod, { info: { podUid: pod.uid, enrolment: { mesh: true }, terminating: true } })
  await becomes(() => told.length > 0)
  await node.pods.podSeen({ ...pod, terminating: true })
  await node.pods.podGone(pod.uid, 1000)
  t.strictSame(told, [pod.uid])
  t.equal(await node.pods.podSafe(pod.uid, PATIENCE), 'safe', 'of one that has gone nothing passes')
})

await t.test(
  'an agent that stops leaves nothing in a pod that has left the mesh a moment before',
  async t => {
    const node = await world(t)
    const pod = node.pod(node.client)
    node.tell(pod)
    await node.pods.podSeen(pod)
    await node.state(pod.uid, 'enrolled')
    const socket = await connectFrom(t, node.client, node.server.ip, 8080)
    await once(socket, 'data')
    node.tell(pod, { info: { podUid: pod.uid, enrolment: { mesh: false } } })
    await node.state(pod.uid, 'not-enrolled')
    const rules = () => inPod(node.client, 'sh', ['-c', 'iptables-save; ip6tables-save; ip rule; ip -6 rule'])
    t.match(rules(), /CULVERT_PREROUTING[^]*lookup 100/, 'the way back stays for what is open')
    socket.destroy()
    await node.threads.drain(5000)
    await node.pods.clearAway(10_000)
    t.notMatch(rules(), /CULVERT|lookup 100/)
    t.equal(node.keeper.holds(pod.uid), false)
  },
)
