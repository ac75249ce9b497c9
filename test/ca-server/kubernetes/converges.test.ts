import * as fc from 'fast-check'
import t from 'tap'
import { errorText } from '../../../lib/errors.ts'
import { ApiServer, errorEvent } from '../../helpers/api-server.ts'
import { kubeNamespace, kubePod, kubeSlice } from '../../helpers/kube-world.ts'
import { reflect, type Reflected } from '../../helpers/reflected.ts'

type Step = (api: ApiServer, reflected: Reflected) => void | Promise<void>

const name = fc.constantFrom('a', 'b', 'c', 'd')
const kind = fc.constantFrom('Pod' as const, 'EndpointSlice' as const, 'Namespace' as const)

const edits: fc.Arbitrary<[string, Step]>[] = [
  fc
    .tuple(name, fc.boolean(), fc.constantFrom('node-a', 'node-b'))
    .map(([name, ready, node]) => [
      `pod ${name} ${ready} ${node}`,
      api => api.put(kubePod(name, { ready, node })),
    ]),
  fc.tuple(name, fc.subarray(['a', 'b', 'c'])).map(([service, pods]) => [
    `slice ${service} of ${pods.join()}`,
    api =>
      api.put(
        kubeSlice(
          service,
          pods.map(pod => kubePod(pod)),
        ),
      ),
  ]),
  name.map(name => [`namespace ${name}`, api => api.put(kubeNamespace(name))]),
  fc
    .tuple(kind, name)
    .map(([kind, name]) => [
      `delete ${kind} ${name}`,
      api => api.delete(kind, kind === 'Namespace' ? name : `shop/${name}`),
    ]),
]

const faults: fc.Arbitrary<[string, Step]>[] = [
  kind.map(kind => [`cut ${kind}`, api => api.cutWatches(kind)]),
  kind.map(kind => [`end ${kind}`, api => api.endWatches(kind)]),
  kind.map(kind => [`bookmark ${kind}`, api => api.bookmark(kind)]),
  kind.map(kind => [`410 ${kind}`, api => api.write(kind, errorEvent(410))]),
  kind.map(kind => [`500 ${kind}`, api => api.write(kind, errorEvent(500))]),
  kind.map(kind => [`half ${kind}`, api => (api.write(kind, '{"type":"ADD'), api.cutWatches(kind))]),
  kind.map(kind => [`garbage ${kind}`, api => api.write(kind, '\u0000\n')]),
  fc.constant<[string, Step]>(['forget', api => api.forget()]),
  fc
    .tuple(fc.constantFrom('list' as const, 'watch' as const), kind, fc.constantFrom(410, 429, 500))
    .map(([verb, kind, status]) => [
      `next ${verb} ${kind} ${status}`,
      api => api.failNext(verb, kind, status),
    ]),
  fc.constant<[string, Step]>([
    'wait for a request',
    async api => {
      const before = api.requests.length
      api.cutWatches('Pod')
      await api.until(() => api.requests.length > before)
    },
  ]),
]

await t.test('whatever happens, the world becomes what a fresh list says', async t => {
  const step = fc.oneof(...edits, ...faults)
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async steps => {
      const teardowns: (() => unknown)[] = []
      const owner = { teardown: (work: () => unknown) => void teardowns.push(work) } as typeof t
      try {
        const api = await ApiServer.start(owner)
        const reflected = await reflect(owner, api)
        for (const [, work] of steps) await work(api, reflected)
        const fresh = await reflect(owner, api)
        await fresh.settled()
        const wanted = contentsOf(fresh)
        await reflected.until(() => reflected.world.isSynced && contentsOf(reflected) === wanted)
        await reflected.settled()
        t.equal(contentsOf(reflected), wanted)
      } finally {
        for (const work of teardowns.reverse()) await work()
      }
    }),
    {
      numRuns: 60,
      examples: [],
      reporter: details => {
        if (details.failed)
          throw new Error(
            `${details.counterexample?.[0].map(([text]) => text).join('; ')}: ${errorText(details.errorInstance)}`,
          )
      },
    },
  )
})

/** Everything that is held, as the changes told it. */
function contentsOf({ held }: Reflected): string {
  return [...held]
    .map(([key, object]) => `${key} ${JSON.stringify(object)}`)
    .sort()
    .join('\n')
}
