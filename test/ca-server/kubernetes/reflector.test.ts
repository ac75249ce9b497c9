import t from 'tap'
import { ApiServer, errorEvent } from '../../helpers/api-server.ts'
import { kubeNamespace, kubeNode, kubePod, kubeService, kubeSlice } from '../../helpers/kube-world.ts'
import { reflect } from '../../helpers/reflected.ts'

function pods(count: number, from = 0) {
  return Array.from({ length: count }, (_, at) => kubePod(`pod-${from + at}`))
}

await t.test('everything is listed page by page, and every event goes in', async t => {
  const api = await ApiServer.start(t)
  api.put(kubeNode('node-a', '10.0.0.1'), kubeNamespace('shop'), kubeService('echo'), ...pods(1200))
  const { world, until, settled, changes } = await reflect(t, api)
  await settled()
  t.equal(world.counts().get('Pod'), 1200)
  const pages = api.asked('list', 'Pod').map(({ query }) => [query.get('limit'), query.has('continue')])
  t.strictSame(pages, [
    ['500', false],
    ['500', true],
    ['500', true],
  ])
  t.match(Object.fromEntries(api.asked('watch', 'Pod')[0]!.query), {
    allowWatchBookmarks: 'true',
    resourceVersion: `${api.version}`,
    timeoutSeconds: /^[345]\d\d$/,
  })
  changes.length = 0
  api.put(kubeSlice('echo', [kubePod('pod-1')]))
  api.put(kubePod('pod-1', { ready: false }))
  api.delete('Pod', 'shop/pod-2')
  await until(() => changes.length === 3)
  t.strictSame(changes.map(({ kind, after }) => `${kind} ${after ? 'is' : 'gone'}`).sort(), [
    'EndpointSlice is',
    'Pod gone',
    'Pod is',
  ])
  t.equal(world.pod('shop/pod-1')?.status.ready, false)
  t.equal(world.pod('shop/pod-2'), undefined)
})

await t.test('nothing is whole before every kind has been listed, and what is missing is named', async t => {
  const api = await ApiServer.start(t)
  let isForbidden = true
  api.faults.add(({ kind, verb }, response) => {
    if (!isForbidden || kind !== 'EndpointSlice' || verb !== 'list') return false
    response.writeHead(403)
    response.end(JSON.stringify({ kind: 'Status', message: 'endpointslices is forbidden', code: 403 }))
    return true
  })
  const { world, source, until, lines, settled } = await reflect(t, api)
  await api.until(() => api.watchers('Pod') > 0 && api.asked('list', 'EndpointSlice').length > 3)
  t.notOk(world.isSynced)
  t.match(source.pending(), [
    /^the first list of endpointslices \(.* was answered 403: endpointslices is forbidden\)$/,
  ])
  t.equal(lines.filter(({ msg }) => msg.includes('trying again')).length, 1, 'said once')
  isForbidden = false
  await until(() => world.isSynced)
  await settled()
  t.strictSame(source.pending(), [])
  t.ok(lines.some(({ msg }) => msg === 'the API server answers again'))
})

await t.test('a watch goes on from the last bookmark or event', async t => {
  const api = await ApiServer.start(t)
  const { settled, until, world } = await reflect(t, api)
  await settled()
  api.put(kubePod('one'))
  await until(() => world.pod('shop/one') !== undefined)
  const afterPod = api.version
  api.endWatches('Pod')
  await api.until(() => api.asked('watch', 'Pod').length === 2 && api.watchers('Pod') === 1)
  t.equal(api.asked('watch', 'Pod')[1]!.query.get('resourceVersion'), `${afterPod}`)

  api.put(kubeService('other')) // the version moves on, but not for pods
  api.bookmark('Pod')
  api.endWatches('Pod')
  await api.until(() => api.asked('watch', 'Pod').length === 3)
  t.equal(api.asked('watch', 'Pod')[2]!.query.get('resourceVersion'), `${api.version}`)
  t.equal(api.asked('list', 'Pod').length, 1)
})

for (const [how, end] of [
  ['instead of an answer', (api: ApiServer) => api.cutWatches('Pod')],
  ['in the stream', (api: ApiServer) => api.write('Pod', errorEvent(410))],
] as const)
  await t.test(`410 ${how}: a new list, and only what differs is told`, async t => {
    const api = await ApiServer.start(t)
    api.put(...pods(5))
    const { world, settled, until, changes } = await reflect(t, api)
    await settled()
    changes.length = 0
    end(api)
    api.put(kubePod('pod-1', { ready: false }), kubePod('new'))
    api.delete('Pod', 'shop/pod-3')
    api.forget()
    await until(() => world.pod('shop/pod-3') === undefined)
    await api.until(() => api.asked('list', 'Pod').length === 2)
    t.strictSame(changes.map(({ key, before, after }) => `${key} ${!!before} ${!!after}`).sort(), [
      'shop/new false true',
      'shop/pod-1 true true',
      'shop/pod-3 true false',
    ])
    api.put(kubePod('next'))
    await until(() => world.pod('shop/next') !== undefined)
  })

await t.test('429 is not asked again before the server wants it, list or watch', async t => {
  const api = await ApiServer.start(t)
  api.failNext('list', 'Pod', 429, { 'retry-after': '1' })
  api.failNext('watch', 'Pod', 429, { 'retry-after': '1' })
  const { settled, until, world } = await reflect(t, api)
  await settled()
  for (const verb of ['list', 'watch'] as const) {
    const [first, second] = api.asked(verb, 'Pod')
    t.ok(second!.atMs - first!.atMs >= 1000, verb)
  }
  api.write('Pod', errorEvent(429, 1))
  await api.until(() => api.asked('watch', 'Pod').length === 3)
  api.put(kubePod('one'))
  await until(() => world.pod('shop/one') !== undefined)
  t.equal(api.asked('list', 'Pod').length, 2, 'a watch that was put off is no reason to list')
})

await t.test('a server that is in trouble is asked until it is well', async t => {
  const api = await ApiServer.start(t)
  for (const status of [500, 503, 504]) api.failNext('list', 'Pod', status)
  for (const status of [500, 503]) api.failNext('watch', 'Pod', status)
  api.put(kubePod('one'))
  const { settled, world, until } = await reflect(t, api)
  await settled()
  t.ok(world.pod('shop/one'))
  api.write('Pod', errorEvent(500))
  await api.until(() => api.asked('watch', 'Pod').length === 4)
  api.put(kubePod('two'))
  await until(() => world.pod('shop/two') !== undefined)
  t.equal(api.asked('list', 'Pod').length, 4, 'it was not listed again')
})

await t.test('a watch that the server keeps refusing ends in a new list', async t => {
  const api = await ApiServer.start(t)
  const { settled, world, until } = await reflect(t, api)
  await settled()
  for (let at = 0; at < 5; at++) api.failNext('watch', 'Pod', 504)
  api.cutWatches('Pod')
  await api.until(() => api.asked('list', 'Pod').length === 2)
  t.equal(api.asked('watch', 'Pod').length, 6)
  api.put(kubePod('one'))
  await until(() => world.pod('shop/one') !== undefined)
})

await t.test('a connection cut in the middle of an event loses nothing', async t => {
  const api = await ApiServer.start(t)
  const { settled, world, until, lines } = await reflect(t, api)
  await settled()
  api.write('Pod', '{"type":"ADDED","object":{"metadata":{"name":"half')
  api.cutWatches('Pod')
  api.put(kubePod('whole'))
  await until(() => world.pod('shop/whole') !== undefined)
  api.write('Pod', '{"type":"ADDED","object":{"metadata":{"name":"half')
  api.endWatches('Pod')
  api.put(kubePod('another'))
  await until(() => world.pod('shop/another') !== undefined)
  t.equal(world.counts().get('Pod'), 2)
  t.equal(api.asked('list', 'Pod').length, 1)
  t.ok(lines.some(({ err }) => /half.* is no event/.test(String(err))))
})

await t.test(
  'what is no event ends the watch; when it comes again and again everything is listed',
  async t => {
    const api = await ApiServer.start(t)
    const { settled, world, until } = await reflect(t, api)
    await settled()
    for (const text of [
      'garbage\n',
      '{"type":"SOMETHING","object":{}}\n',
      '{"type":"ADDED","object":{}}\n',
      'null\n',
    ]) {
      const before = api.asked('watch', 'Pod').length
      api.write('Pod', text)
      await api.until(() => api.asked('watch', 'Pod').length === before + 1 && api.watchers('Pod') === 1)
    }
    t.equal(api.asked('list', 'Pod').length, 1)
    api.write('Pod', '[]\n')
    await api.until(() => api.asked('list', 'Pod').length === 2 && api.watchers('Pod') === 1)
    api.put(kubePod('one'))
    await until(() => world.pod('shop/one') !== undefined)
  },
)

await t.test('a watch on which nothing comes is given up and begun again', async t => {
  const api = await ApiServer.start(t)
  const { settled, world, until, lines } = await reflect(t, api, { silenceMs: 100 })
  await settled()
  const before = api.asked('watch', 'Pod').length
  await api.until(() => api.asked('watch', 'Pod').length > before)
  api.put(kubePod('one'))
  await until(() => world.pod('shop/one') !== undefined)
  t.equal(api.asked('list', 'Pod').length, 1)
  t.ok(lines.some(({ err }) => /silent for 100 ms/.test(String(err))))
})

await t.test('a list whose end the server has forgotten is begun again', async t => {
  const api = await ApiServer.start(t)
  api.put(...pods(600))
  let isFirst = true
  api.faults.add(({ kind, query }) => {
    if (kind !== 'Pod' || !query.has('continue') || !isFirst) return false
    isFirst = false
    api.delete('Pod', 'shop/pod-7') // it was on the first page
    api.forget()
    return false
  })
  const { settled, world } = await reflect(t, api)
  await settled()
  t.equal(world.counts().get('Pod'), 599)
  t.equal(world.pod('shop/pod-7'), undefined)
  t.strictSame(
    api.asked('list', 'Pod').map(({ query }) => query.has('continue')),
    [false, true, false, true],
  )
})

await t.test('a page that is too long is asked for in smaller ones', async t => {
  const api = await ApiServer.start(t)
  api.put(...pods(600))
  const { settled, world } = await reflect(t, api, { maxPageBytes: 60_000 })
  await settled()
  t.equal(world.counts().get('Pod'), 600)
  const limits = api.asked('list', 'Pod').map(({ query }) => Number(query.get('limit')))
  t.strictSame(limits.slice(0, 2), [500, 125])
})

await t.test('an event that is too long is passed over', async t => {
  const api = await ApiServer.start(t)
  const { settled, world, until, lines } = await reflect(t, api, { maxEventBytes: 20_000 })
  await settled()
  api.put(kubePod('huge', { meta: { annotations: { 'culvert.dev/x': 'x'.repeat(1_000_000) } } }))
  api.put(kubePod('one'))
  await until(() => world.pod('shop/one') !== undefined)
  t.equal(world.pod('shop/huge'), undefined)
  t.equal(api.asked('watch', 'Pod').length, 1, 'the watch goes on')
  t.match(
    lines.find(({ msg }) => msg.startsWith('object not readable')),
    { object: /"name":"huge"/, problems: [/^an event of 100\d{4} bytes$/] },
  )
})

await t.test(
  'of an object that cannot be read the last good state stays, and each version is told of once',
  async t => {
    const api = await ApiServer.start(t)
    const bad = { metadata: { name: 'one', namespace: 'shop', uid: 'u' }, spec: { containers: 7 } }
    api.put(kubePod('one'), kubePod('two'))
    const { settled, world, until, lines } = await reflect(t, api)
    await settled()
    const told = () => lines.filter(({ object }) => object === 'shop/one').length
    api.putRaw('Pod', 'shop/one', bad)
    api.put(kubePod('three'))
    await until(() => world.pod('shop/three') !== undefined)
    t.equal(world.pod('shop/one')?.status.phase, 'Running')
    t.equal(told(), 1)
    api.forget()
    api.write('Pod', errorEvent(410))
    api.delete('Pod', 'shop/two')
    await until(() => world.pod('shop/two') === undefined)
    t.ok(world.pod('shop/one'), 'it is there')
    t.equal(told(), 1, 'it is the same version')
    api.putRaw('Pod', 'shop/one', bad)
    api.put(kubePod('four'))
    await until(() => world.pod('shop/four') !== undefined)
    t.equal(told(), 2)
    api.delete('Pod', 'shop/one')
    await until(() => world.pod('shop/one') === undefined)
  },
)

await t.test('a server that is away is found again where it was', async t => {
  const api = await ApiServer.start(t)
  const { settled, world, until, lines } = await reflect(t, api)
  await settled()
  const { port } = api
  await api.stop()
  api.put(kubePod('one'))
  await api.listen(port)
  await until(() => world.pod('shop/one') !== undefined)
  t.equal(api.asked('list', 'Pod').length, 1, 'it went on watching')
  t.ok(lines.some(({ err }) => /cannot be reached|cut off/.test(String(err))))
})

await t.test('it ends at once, whatever it is doing', async t => {
  const api = await ApiServer.start(t)
  const { settled, stop, world } = await reflect(t, api)
  await settled()
  stop()
  await api.until(() => api.watchers('Pod') + api.watchers('Node') === 0)
  const asked = api.requests.length
  api.put(kubePod('late'))
  t.equal(world.pod('shop/late'), undefined)
  t.equal(api.requests.length, asked)

  // A loop that did not end would ask for ever, and keep this process.
  const silent = await ApiServer.start(t)
  silent.faults.add(() => true)
  const listing = await reflect(t, silent)
  await silent.until(() => silent.requests.length === 5)
  listing.stop()
  const waiting = await ApiServer.start(t)
  for (let at = 0; at < 5; at++) waiting.failNext('list', 'Pod', 429, { 'retry-after': '300' })
  const put = await reflect(t, waiting)
  await waiting.until(() => waiting.asked('list', 'Pod').length === 1)
  put.stop()
})
