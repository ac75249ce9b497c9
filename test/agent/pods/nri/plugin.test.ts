import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { messageBytes, REQUEST, RESPONSE } from '../../../../agent/pods/nri/message.ts'
import { PLUGIN_CONNECTION, RUNTIME_CONNECTION } from '../../../../agent/pods/nri/multiplex.ts'
import { NriPlugin, type SandboxEvents } from '../../../../agent/pods/nri/plugin.ts'
import { sandbox, StandInRuntime } from '../../../helpers/nri-runtime.ts'
import { quietLog } from '../../../helpers/quiet-log.ts'

async function world(t: Test, events: Partial<SandboxEvents> = {}) {
  const runtime = await new StandInRuntime(t).start()
  const told: string[] = []
  const { log, lines } = quietLog()
  const tell =
    (what: string) =>
    async ({ uid }: { uid: string }) =>
      void told.push(`${what} ${uid}`)
  const plugin = new NriPlugin({
    socket: runtime.socket,
    log,
    events: {
      synchronized: sandboxes => told.push(`all ${sandboxes.map(({ uid }) => uid).join(' ')}`),
      run: tell('run'),
      stop: tell('stop'),
      remove: tell('remove'),
      ...events,
    },
  })
  const stop = new AbortController()
  const served = plugin.serve(stop.signal)
  t.teardown(async () => {
    stop.abort()
    await served
  })
  return { runtime, plugin, served, stop, told, lines }
}

await t.test(
  'it registers, asks for the beginning and the end of sandboxes, and hears of all there are',
  async t => {
    const { runtime, plugin, told } = await world(t)
    const it = await runtime.connected()
    t.match(await it.registered, { pluginName: 'culvert', pluginIdx: '90' })
    t.equal(plugin.runtime, undefined)
    t.equal(await it.configure(), 0b111)
    t.equal(plugin.runtime, 'stand-in 1.0')
    t.equal(plugin.isSynchronized, false)
    t.strictSame(
      await it.synchronize(
        ['a', 'b', 'c', 'd', 'e'].map(uid => sandbox(uid)),
        2,
      ),
      [true, true, false],
      'what comes in parts is asked for to its end',
    )
    t.equal(plugin.isSynchronized, true)
    for (const event of ['RUN', 'STOP', 'REMOVE'] as const) await it.changed(event, sandbox('f'))
    t.strictSame(told, ['all a b c d e', 'run f', 'stop f', 'remove f'])
  },
)

await t.test('calls that nobody asked for are answered with nothing, unknown ones by saying so', async t => {
  const { runtime } = await world(t)
  const it = await runtime.plugin()
  for (const method of [
    'CreateContainer',
    'UpdateContainer',
    'StopContainer',
    'UpdatePodSandbox',
    'Shutdown',
  ])
    t.match(await it.call(method), { status: undefined, payload: new Uint8Array(0) }, method)
  // By this newer runtimes learn that they have to call by the older names.
  t.match(await it.call('RunPodSandbox'), { status: { code: 12 } })
})

await t.test('a pod does not start before it may, and always when the time is over', async t => {
  const gate = Promise.withResolvers<void>()
  const { runtime } = await world(t, { run: () => gate.promise })
  const it = await runtime.plugin()
  let isAnswered = false
  const answered = it.changed('RUN', sandbox('a')).then(response => {
    isAnswered = true
    return response
  })
  await it.changed('STOP', sandbox('b'))
  t.equal(isAnswered, false)
  gate.resolve()
  t.match(await answered, { status: undefined })

  const { runtime: slow } = await world(t, { run: () => new Promise(() => undefined) })
  const other = await slow.plugin([], 2000)
  const startMs = performance.now()
  t.match(await other.changed('RUN', sandbox('a')), { status: undefined })
  const tookMs = performance.now() - startMs
  t.ok(tookMs >= 1590 && tookMs < 2000, `answered after ${tookMs.toFixed(0)} of 2000 ms`)
})

await t.test('no failure of ours keeps a pod from starting', async t => {
  const { runtime, lines } = await world(t, { run: () => Promise.reject(new Error('out of sockets')) })
  const it = await runtime.plugin()
  t.match(await it.changed('RUN', sandbox('a')), { status: undefined })
  t.match(
    lines.find(({ msg }) => msg === 'NRI event failed'),
    { pod: 'shop/a', event: 'RUN_POD_SANDBOX', err: 'out of sockets' },
  )
  t.match(await it.call('StateChange', Buffer.from('ffffffff', 'hex')), { status: undefined })
  t.ok(lines.some(({ msg }) => msg === 'NRI event not understood'))
})

await t.test('events of different pods do not wait for each other', async t => {
  const gate = Promise.withResolvers<void>()
  const { runtime } = await world(t, { run: ({ uid }) => (uid === 'a' ? gate.promise : Promise.resolve()) })
  const it = await runtime.plugin()
  const first = it.changed('RUN', sandbox('a'))
  t.match(await it.changed('RUN', sandbox('b')), { status: undefined })
  gate.resolve()
  await first
})

await t.test('a runtime that says no, or is not there, is named', async t => {
  const { log } = quietLog()
  const events = { synchronized: () => undefined } as unknown as SandboxEvents
  const missing = new NriPlugin({ socket: '/nowhere/nri.sock', log, events })
  t.match(await missing.serve(new AbortController().signal), {
    code: 'UNREACHABLE',
    message: /connection failed/,
  })
  const { runtime, served } = await world(t)
  const it = await runtime.connected()
  it.answer(1, 2, 'no\nplugins\u0000here')
  t.match(await served, { code: 'DENIED', message: /refused RegisterPlugin: no.plugins.here \(code 2\)/ })
})

await t.test('what breaks the protocol ends the connection under its name', async t => {
  const message = (type: number, stream = 1, body = new Uint8Array(0)) => messageBytes({ type, stream, body })
  const tooLong = Buffer.from('00000001ffffffff', 'hex')
  for (const [what, connection, bytes] of [
    ['no request', PLUGIN_CONNECTION, message(RESPONSE)],
    ['even stream', PLUGIN_CONNECTION, message(REQUEST, 2)],
    ['no response', RUNTIME_CONNECTION, message(REQUEST)],
    ['not protobuf', PLUGIN_CONNECTION, message(REQUEST, 1, Buffer.from('ffffffff', 'hex'))],
    ['not protobuf either', RUNTIME_CONNECTION, message(RESPONSE, 9, Buffer.from('ffffffff', 'hex'))],
    ['a frame that is too long', undefined, tooLong],
    ['a message that is too long', PLUGIN_CONNECTION, Buffer.from('ffffffff000000010100', 'hex')],
  ] as const) {
    const { runtime, served } = await world(t)
    const it = await runtime.plugin()
    if (connection === undefined) it.socket.write(bytes)
    else it.send(connection, bytes)
    t.match(await served, { code: 'PROTOCOL' }, what)
    await it.closed
  }
})

await t.test('what is none of ours is dropped', async t => {
  const { runtime } = await world(t)
  const it = await runtime.plugin()
  it.send(7, Buffer.from('of another connection'))
  it.answer(99)
  t.match(await it.changed('RUN', sandbox('a')), { status: undefined })
})

await t.test('it ends with its signal, and at once when it was given before', async t => {
  const { runtime, served, stop } = await world(t)
  const it = await runtime.plugin()
  stop.abort()
  t.match(await served, { code: 'CLOSED' })
  await it.closed
  const { log } = quietLog()
  const plugin = new NriPlugin({ socket: runtime.socket, log, events: {} as SandboxEvents })
  t.match(await plugin.serve(AbortSignal.abort()), { code: 'CLOSED' })
})

await t.test('a runtime that never reads its answers is left', async t => {
  const { runtime, served } = await world(t)
  const it = await runtime.plugin()
  it.socket.pause()
  const body = messageBytes({ stream: 1, type: REQUEST, body: new Uint8Array(0) })
  const flood = Buffer.concat(Array.from({ length: 2000 }, () => body))
  const over = served.then(() => true)
  while (!(await Promise.race([over, sleep(0, false)]))) {
    it.send(PLUGIN_CONNECTION, flood)
    if (it.socket.writableNeedDrain) await Promise.race([once(it.socket, 'drain'), over])
  }
  t.match(await served, { code: 'PROTOCOL' })
})
