import t, { type Test } from 'tap'
import { NriPodSource } from '../../../../agent/pods/nri/source.ts'
import type { Safety } from '../../../../agent/pods/source.ts'
import { becomes } from '../../../helpers/becomes.ts'
import { sandbox, StandInRuntime, type Sandbox } from '../../../helpers/nri-runtime.ts'
import { quietLog } from '../../../helpers/quiet-log.ts'
import { ToldPods } from '../../../helpers/told-pods.ts'

async function world(t: Test, start = true) {
  const runtime = new StandInRuntime(t)
  if (start) await runtime.start()
  const told = new ToldPods()
  const held: Safety[] = []
  const links: boolean[] = []
  const { log, lines } = quietLog()
  const source = new NriPodSource({
    socket: runtime.socket,
    log,
    onHeld: (_, safety) => held.push(safety),
    onLink: is => links.push(is),
    retryMs: 20,
  })
  const stop = new AbortController()
  const running = source.run(told, stop.signal)
  t.teardown(async () => {
    stop.abort()
    await running
  })
  return { runtime, told, source, held, links, lines, stop, running }
}

const network = (path?: string): Sandbox => ({
  linux: { namespaces: [{ type: 'ipc' }, ...(path === undefined ? [] : [{ type: 'network', path }])] },
})

await t.test('a pod is told with what the runtime knows of it', async t => {
  const { runtime, told } = await world(t)
  const it = await runtime.plugin()
  await it.changed('RUN', sandbox('a', { annotations: { 'culvert.dev/mesh': 'enabled' }, pid: 42 }))
  t.strictSame(told.pods.get('a'), {
    uid: 'a',
    namespace: 'shop',
    name: 'a',
    ips: ['10.0.0.1', 'fd00::1'],
    annotations: { 'culvert.dev/mesh': 'enabled' },
    netns: '/proc/self/ns/net',
    pid: 42,
    terminating: false,
  })
  await it.changed('RUN', sandbox('b', { pid: 0, ips: ['not an address', '10.0.0.2'] }))
  t.match(told.pods.get('b'), { pid: undefined, ips: ['10.0.0.2'] })
})

await t.test('pods of the node’s own network, and those from a file on the node, are left alone', async t => {
  const { runtime, told, source } = await world(t)
  const others = [
    sandbox('host', network()),
    sandbox('odd', network('relative')),
    sandbox('file', { annotations: { 'kubernetes.io/config.source': 'file' } }),
    sandbox(''),
  ]
  const it = await runtime.plugin([...others, sandbox('a')])
  for (const other of others) await it.changed('RUN', other)
  t.strictSame(await told.after(2), ['seen a', 'synced a'])
  t.match(source.status(), { kind: 'nri', waitsFor: undefined, pods: 1, held: { pods: 0 } })
})

await t.test('a pod may start when it is safe', async t => {
  const { runtime, told, held } = await world(t)
  const gate = Promise.withResolvers<Safety>()
  told.safe = () => gate.promise
  const it = await runtime.plugin([], 2000)
  let mayStart = false
  const answered = it.changed('RUN', sandbox('a')).then(() => (mayStart = true))
  await it.changed('REMOVE', sandbox('other'))
  t.equal(mayStart, false)
  gate.resolve('safe')
  await answered
  t.match(told.patience.get('a'), { withinMs: 1600, unknownMs: 800 })
  t.strictSame(held, ['safe'])
  t.match(told.words, ['synced', 'seen a'], 'nothing more is said of it')
})

await t.test('a pod that is not captured in time starts all the same, and that is said of it', async t => {
  const { runtime, told, held, source, lines } = await world(t)
  const it = await runtime.plugin([], 2000)
  told.safe = async () => 'late'
  await it.changed('RUN', sandbox('late'))
  await told.until(() => told.words.length === 3)
  t.match(told.pods.get('late')?.caveat, /started before it was captured/)
  told.safe = async () => 'unknown'
  await it.changed('RUN', sandbox('unknown'))
  await told.until(() => told.words.length === 5)
  t.match(told.pods.get('unknown')?.caveat, /before it was known whether it is in the mesh/)
  t.strictSame(held, ['late', 'unknown'])
  t.match(source.status(), { held: { pods: 2, late: 1, unknown: 1 } })
  t.match(
    lines.filter(({ level }) => level === 'warn'),
    [{ pod: 'shop/late' }, { pod: 'shop/unknown' }],
  )
  await it.synchronize([sandbox('late'), sandbox('unknown', { id: 'its second' })])
  t.match(
    told.pods.get('late')?.caveat,
    /before it was captured/,
    'what was said of a sandbox stays true of it',
  )
  t.equal(told.pods.get('unknown')?.caveat, undefined)
})

await t.test('a pod that cannot even be told of does not keep the runtime waiting', async t => {
  const { runtime, told, held } = await world(t)
  told.seen = () => new Promise(() => undefined)
  const it = await runtime.plugin([], 1000)
  t.match(await it.changed('RUN', sandbox('a')), { status: undefined })
  t.strictSame(held, ['late'])
})

await t.test('what nobody knows is waited for once: then discovery is taken to be away', async t => {
  const { runtime, told } = await world(t)
  const it = await runtime.plugin([], 2000)
  told.safe = async () => 'unknown'
  await it.changed('RUN', sandbox('a'))
  await it.changed('RUN', sandbox('b'))
  t.equal(told.patience.get('a')?.unknownMs, 800)
  t.equal(told.patience.get('b')?.unknownMs, 50)
  told.safe = async () => 'safe'
  await it.changed('RUN', sandbox('c'))
  await it.changed('RUN', sandbox('d'))
  t.equal(told.patience.get('d')?.unknownMs, 800, 'and to be back when it has told something')
})

await t.test(
  'a sandbox that stops is told before its network goes; that of an earlier one is nothing new',
  async t => {
    const { runtime, told } = await world(t)
    const it = await runtime.plugin([sandbox('a')])
    await told.after(2)
    await it.changed('RUN', sandbox('a', { id: 'second', pid: 43 }))
    await it.changed('STOP', sandbox('a'))
    await it.changed('REMOVE', sandbox('a'))
    t.strictSame(told.words.splice(0), ['seen a'])
    await it.changed('STOP', sandbox('a', { id: 'second' }))
    await it.changed('REMOVE', sandbox('a', { id: 'second' }))
    t.strictSame(told.words, ['gone a'])
    t.equal(told.drains.get('a'), 500)
  },
)

await t.test('what is told of one pod is told in order', async t => {
  const { runtime, told } = await world(t)
  const gate = Promise.withResolvers<void>()
  told.seen = () => gate.promise
  const it = await runtime.plugin()
  const answers = [
    it.changed('RUN', sandbox('a')),
    it.changed('STOP', sandbox('a')),
    it.changed('RUN', sandbox('b')),
  ]
  await told.until(() => told.words.includes('seen b'))
  t.strictSame(told.words, ['synced', 'seen a', 'seen b'])
  gate.resolve()
  await Promise.all(answers)
  t.strictSame(told.words, ['synced', 'seen a', 'seen b', 'gone a'])
})

await t.test('the runtime is restarted: it is found again, and what has changed is made up for', async t => {
  const { runtime, told, links, source, lines } = await world(t)
  await runtime.plugin([sandbox('stays'), sandbox('goes'), sandbox('moves')])
  t.strictSame((await told.after(4)).sort(), [
    'seen goes',
    'seen moves',
    'seen stays',
    'synced goes moves stays',
  ])
  await runtime.stop()
  while (!lines.some(({ msg }) => msg === 'no connection to the container runtime'))
    await new Promise(setImmediate)
  t.match(source.status(), { waitsFor: /NRI socket .*: NRI: the container runtime closed the connection/ })
  await runtime.start()
  await runtime.plugin([
    sandbox('stays'),
    sandbox('moves', { id: 'second', ips: ['10.0.0.9'] }),
    sandbox('comes'),
    sandbox('stopped', { ...network('/run/netns/gone'), pid: 0 }),
  ])
  t.strictSame((await told.after(5)).sort(), [
    'gone goes',
    'seen comes',
    'seen moves',
    'seen stays',
    'synced comes moves stays',
  ])
  t.strictSame(told.pods.get('moves')?.ips, ['10.0.0.9'])
  t.strictSame(links, [true, false, true])
  t.match(source.status(), { waitsFor: undefined, runtime: 'stand-in 1.0', pods: 3 })
})

await t.test('of two sandboxes of one pod the one with a process counts', async t => {
  const { runtime, told } = await world(t)
  await runtime.plugin([
    sandbox('a', { id: 'first', pid: 0, ips: ['10.0.0.1'] }),
    sandbox('a', { id: 'second', pid: 7, ips: ['10.0.0.2'] }),
    sandbox('b', { id: 'second', pid: 8, ips: ['10.0.0.4'] }),
    sandbox('b', { id: 'first', pid: 0, ips: ['10.0.0.3'] }),
  ])
  await told.after(3)
  t.strictSame(told.pods.get('a')?.ips, ['10.0.0.2'])
  t.strictSame(told.pods.get('b')?.ips, ['10.0.0.4'])
})

await t.test('a socket that is not there yet is waited for, without a word each time', async t => {
  const { runtime, told, source, lines } = await world(t, false)
  await becomes(() => (source.status()['connections'] as number) >= 5)
  t.match(source.status(), { waitsFor: /NRI socket \S+: NRI: connection failed/ })
  t.equal(lines.filter(({ level }) => level === 'warn').length, 1)
  await runtime.start()
  await runtime.plugin()
  t.strictSame(await told.after(1), ['synced'])
})

await t.test('it ends with its signal', async t => {
  const { runtime, stop, running } = await world(t)
  const it = await runtime.plugin()
  stop.abort()
  await running
  await it.closed
})
