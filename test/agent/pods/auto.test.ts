import t, { type Test } from 'tap'
import { AutoPodSource } from '../../../agent/pods/auto.ts'
import { becomes } from '../../helpers/becomes.ts'
import { MeshWorld } from '../../helpers/mesh-world.ts'
import { sandbox, StandInRuntime } from '../../helpers/nri-runtime.ts'
import { quietLog } from '../../helpers/quiet-log.ts'
import { ToldPods } from '../../helpers/told-pods.ts'

async function world(t: Test, { hasSocket = true, firstMs = 5000, awayMs = 5000 } = {}) {
  const runtime = new StandInRuntime(t)
  if (hasSocket) await runtime.start()
  const mesh = new MeshWorld()
  const told = new ToldPods()
  const { log, lines } = quietLog()
  const source = new AutoPodSource({
    nri: { socket: runtime.socket, log, retryMs: 20 },
    proc: { mesh: mesh.mesh, log, lookMs: 20 },
    log,
    firstMs,
    awayMs,
  })
  const stop = new AbortController()
  const running = source.run(told, stop.signal)
  t.teardown(async () => {
    stop.abort()
    await running
  })
  return { runtime, mesh, told, source, lines }
}

await t.test('where the runtime tells of pods, nobody looks for them', async t => {
  const { runtime, told, source, lines } = await world(t)
  t.match(source.status(), { kind: 'nri', waitsFor: /NRI socket/ })
  const it = await runtime.plugin([sandbox('a')])
  t.strictSame(await told.after(2), ['seen a', 'synced a'])
  await it.changed('RUN', sandbox('b'))
  t.match(source.status(), { kind: 'nri', waitsFor: undefined, pods: 2 })
  t.notOk(lines.some(({ msg }) => msg.includes('/proc')))
})

await t.test('without its socket pods are looked for, until it is there', async t => {
  const { runtime, mesh, told, source, lines } = await world(t, { hasSocket: false, firstMs: 10 })
  await becomes(() => source.status().kind === 'proc')
  t.match(source.status(), { waitsFor: /NRI socket .*, or discovery, to tell which pods/ })
  mesh.synced()
  t.match(await told.after(1), [/^synced/])
  t.match(source.status(), { waitsFor: undefined, caveat: /first second/, nri: { waitsFor: /NRI socket/ } })
  await runtime.start()
  await runtime.plugin([sandbox('a')])
  t.strictSame(await told.after(2), ['seen a', 'synced a'])
  t.match(source.status(), { kind: 'nri', waitsFor: undefined, caveat: undefined })
  t.ok(lines.some(({ msg }) => msg.includes('no more search through /proc')))
})

await t.test('a runtime that stays away is done without, and one that comes back is heard', async t => {
  const { runtime, mesh, told, source } = await world(t, { awayMs: 10 })
  mesh.synced()
  await runtime.plugin([sandbox('a')])
  await told.after(2)
  await runtime.stop()
  t.match(await told.after(1), [/^synced/], 'what is found now is all there is')
  t.equal(source.status().kind, 'proc')
  await runtime.start()
  await runtime.plugin([sandbox('b')])
  t.strictSame(await told.after(3), ['gone a', 'seen b', 'synced b'])
  await runtime.stop()
  t.match(await told.after(1), [/^synced/], 'again')
})

await t.test('a runtime that is only started again is waited for', async t => {
  const { runtime, told, source, lines } = await world(t)
  await runtime.plugin([sandbox('a')])
  await told.after(2)
  await runtime.stop()
  while (!lines.some(({ msg }) => msg === 'no connection to the container runtime'))
    await new Promise(setImmediate)
  await runtime.start()
  await runtime.plugin([sandbox('a')])
  t.strictSame(await told.after(2), ['seen a', 'synced a'])
  t.equal(source.status().kind, 'nri')
})
