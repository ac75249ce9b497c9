import { spawn } from 'node:child_process'
import { once } from 'node:events'
import t, { type Test } from 'tap'
import { PodProcesses } from '../../agent/pods/proc/processes.ts'
import { ProcPodSource } from '../../agent/pods/proc/source.ts'
import { becomes } from '../helpers/becomes.ts'
import { MeshWorld } from '../helpers/mesh-world.ts'
import { canMakeGroups, podProcess } from '../helpers/pod-processes.ts'
import { makePods, type TestPod } from '../helpers/pods.ts'
import { quietLog } from '../helpers/quiet-log.ts'
import { ToldPods } from '../helpers/told-pods.ts'

const skip = !canMakeGroups && 'no control groups can be made here'

let uids = 0
/** Of no pod that any cluster on this machine may have. */
const newUid = () => `c0ffee00-0000-4000-8000-${String(process.pid * 1000 + uids++).padStart(12, '0')}`

function world(t: Test, lookMs = 20) {
  const mesh = new MeshWorld()
  const told = new ToldPods()
  const { log, lines } = quietLog()
  const source = new ProcPodSource({ mesh: mesh.mesh, log, lookMs, hurryMs: 20 })
  const stop = new AbortController()
  const running = source.run(told, stop.signal)
  t.teardown(async () => {
    stop.abort()
    await running
  })
  const tell = (name: string, podUid: string, ips: readonly string[], more = {}) =>
    mesh.pod({
      name,
      ips: [...ips],
      info: { podUid, enrolment: { mesh: true } },
      more: { node: 'node-a', serviceAccount: 'billing', ...more },
    })
  return { mesh, told, source, lines, tell, stop, running }
}

const netnsOf = ({ netns }: TestPod) => new RegExp(`^/(var/)?run/netns/${netns}$`)

await t.test('pods are found by their processes, and named by discovery', { skip }, async t => {
  const [one, two] = makePods(t, ['one', 'two']) as [TestPod, TestPod]
  const { mesh, told, source, tell } = world(t)
  const [uid, other] = [newUid(), newUid()]
  const { pid } = await podProcess(t, one.netns, uid)
  await podProcess(t, two.netns, other)
  t.match(source.status(), { waitsFor: 'discovery, to tell which pods are on this node' })
  tell('one', uid, [one.ip6, one.ip])
  t.strictSame(await told.after(1), [`seen ${uid}`])
  t.match(told.pods.get(uid), {
    namespace: 'shop',
    name: 'one',
    serviceAccount: 'billing',
    ips: [one.ip, one.ip6],
    netns: netnsOf(one),
    pid,
    caveat: /found through \/proc: connections in the first second or so are not captured/,
  })
  mesh.synced()
  const [synced] = await told.after(1)
  t.match(synced, /^synced /)
  for (const each of [uid, other]) t.ok(synced?.includes(each), 'what is there is there, known or not')
  t.match(source.status(), { waitsFor: undefined, pods: 1, caveat: /first second/ })

  tell('two', other, [])
  await told.after(1)
  t.strictSame(told.pods.get(other)?.ips, [two.ip, two.ip6], 'an address that discovery has not heard of yet')
})

await t.test('a pod that comes is found at once while it is expected', { skip }, async t => {
  const [pod] = makePods(t, ['pod']) as [TestPod]
  const { mesh, told, tell } = world(t, 600_000)
  const uid = newUid()
  mesh.synced()
  tell('pod', uid, [])
  await told.after(1)
  await podProcess(t, pod.netns, uid)
  t.strictSame(await told.after(1), [`seen ${uid}`])
})

await t.test('a pod ends when its processes have, and discovery knows it no more', { skip }, async t => {
  const [pod] = makePods(t, ['pod']) as [TestPod]
  const { mesh, told, tell } = world(t)
  const uid = newUid()
  const first = await podProcess(t, pod.netns, uid)
  tell('pod', uid, [pod.ip])
  mesh.synced()
  await told.after(2)
  tell('pod', uid, [pod.ip], { extensions: undefined })
  mesh.removePod('pod')
  await first.kill()
  t.strictSame(await told.after(1), [`gone ${uid}`])
})

await t.test('between two containers of a pod there may be no process', { skip }, async t => {
  const [pod] = makePods(t, ['pod']) as [TestPod]
  const { mesh, told, source, tell } = world(t)
  const uid = newUid()
  const init = await podProcess(t, pod.netns, uid)
  tell('pod', uid, [pod.ip])
  mesh.synced()
  await told.after(2)
  await init.kill()
  const looks = () => (source.status()['looks'] as { count: number }).count
  const from = looks()
  await becomes(() => looks() >= from + 5)
  t.strictSame(told.words, [])
  const app = await podProcess(t, pod.netns, uid)
  t.strictSame(await told.after(1), [`seen ${uid}`])
  t.equal(told.pods.get(uid)?.pid, app.pid)
})

await t.test('a pod that gets another sandbox is told with its new namespace', { skip }, async t => {
  const [old, fresh] = makePods(t, ['old', 'fresh']) as [TestPod, TestPod]
  const { mesh, told, tell } = world(t)
  const uid = newUid()
  const first = await podProcess(t, old.netns, uid)
  tell('pod', uid, [old.ip])
  mesh.synced()
  await told.after(2)
  tell('pod', uid, [fresh.ip])
  await told.until(() => told.pods.get(uid)?.ips[0] === fresh.ip)
  await podProcess(t, fresh.netns, uid)
  await first.kill()
  await told.until(() => netnsOf(fresh).test(told.pods.get(uid)?.netns ?? ''))
  t.pass('told')
})

await t.test('of several namespaces of one pod the one with its addresses is its own', { skip }, async t => {
  const [inner, outer] = makePods(t, ['inner', 'outer']) as [TestPod, TestPod]
  const { mesh, told, tell } = world(t)
  const uid = newUid()
  await podProcess(t, inner.netns, uid)
  await podProcess(t, outer.netns, uid)
  tell('pod', uid, [outer.ip, outer.ip6])
  mesh.synced()
  await told.after(2)
  t.match(told.pods.get(uid)?.netns, netnsOf(outer))
})

await t.test('what is in the node’s own network is no pod’s', { skip }, async t => {
  const [pod] = makePods(t, ['pod']) as [TestPod]
  const uid = newUid()
  const own = await podProcess(t, pod.netns, uid)
  const found = new PodProcesses(undefined).look()
  t.match(found.get(uid), [{ pid: own.pid }])
  const [process] = found.get(uid)!
  t.equal(new PodProcesses(process!.netns).look().has(uid), false)
})

await t.test('it ends with its signal', async t => {
  const { stop, running } = world(t, 600_000)
  stop.abort()
  await running
})

await t.test('a look among 500 more processes costs little', async t => {
  const many = spawn('sh', ['-c', 'for i in $(seq 500); do sleep 1000 & done; echo there; wait'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  })
  t.teardown(() => process.kill(-many.pid!, 'SIGKILL'))
  await once(many.stdout, 'data')
  const processes = new PodProcesses(undefined)
  const costs = Array.from({ length: 30 }, () => {
    const before = process.cpuUsage()
    processes.look()
    const { user, system } = process.cpuUsage(before)
    return (user + system) / 1000
  })
  const usual = costs.slice(5).sort((a, b) => a - b)[Math.floor((costs.length - 5) / 2)]!
  t.comment(`first look ${costs[0]!.toFixed(1)} ms of processor time, later ones ${usual.toFixed(2)} ms`)
  t.ok(usual < 20, `${usual.toFixed(2)} ms`)
})
