import { create } from '@bufbuild/protobuf'
import * as fc from 'fast-check'
import t from 'tap'
import { ResourceSet, type ResourceContent } from '../../../ca-server/discovery/resource-set.ts'
import { Subscription } from '../../../ca-server/discovery/subscription.ts'
import { DeltaDiscoveryRequestSchema } from '../../../lib/proto/gen/envoy/discovery_pb.js'

const TYPE = 'type.googleapis.com/test'

const expired = (): void => undefined

interface Asked {
  subscribe?: string[]
  unsubscribe?: string[]
  initial?: Record<string, string>
}

function request({ subscribe = [], unsubscribe = [], initial = {} }: Asked = {}) {
  return create(DeltaDiscoveryRequestSchema, {
    typeUrl: TYPE,
    resourceNamesSubscribe: subscribe,
    resourceNamesUnsubscribe: unsubscribe,
    initialResourceVersions: initial,
  })
}

function content(text: string, more: Partial<ResourceContent> = {}): ResourceContent {
  return { bytes: Buffer.from(text), ...more }
}

/** A client that applies portions, as the protocol says. */
class Held {
  readonly versions = new Map<string, string>()
  largest = 0

  drain(subscription: Subscription, limit = 10_000): number {
    for (let taken = 0; taken < limit; taken++) {
      const portion = subscription.take()
      if (!portion) return taken
      this.largest = Math.max(this.largest, portion.resources.length)
      for (const name of portion.removed) this.versions.delete(name)
      for (const { name, version } of portion.resources) this.versions.set(name, version)
    }
    throw new Error('there is no end of portions')
  }
}

function versionsOf(set: ResourceSet): Record<string, string> {
  return Object.fromEntries([...set.names()].map(name => [name, set.get(name)!.version]))
}

const step = fc.oneof(
  fc.record({ kind: fc.constant('put' as const), name: fc.nat(7), value: fc.nat(3) }),
  fc.record({ kind: fc.constant('remove' as const), name: fc.nat(7) }),
  fc.record({ kind: fc.constant('take' as const) }),
  fc.record({ kind: fc.constant('reconnect' as const) }),
)

await t.test('a follower of everything ends up with exactly what there is, however it gets there', t => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), fc.constantFrom(1, 600, 1_000_000), (steps, maxBytes) => {
      const set = new ResourceSet(TYPE)
      const held = new Held()
      let subscription = new Subscription(set, request(), { maxBytes, expired })
      for (const { kind, ...what } of steps) {
        const name = `r${'name' in what ? what.name : ''}`
        if (kind === 'put') set.put(name, content(`${name}-${'value' in what ? what.value : ''}`))
        if (kind === 'remove') set.remove(name)
        if (kind === 'take') {
          const portion = subscription.take()
          for (const gone of portion?.removed ?? []) held.versions.delete(gone)
          for (const { name, version } of portion?.resources ?? []) held.versions.set(name, version)
        }
        if (kind === 'reconnect') {
          subscription.close()
          const initial = Object.fromEntries(held.versions)
          subscription = new Subscription(set, request({ initial }), { maxBytes, expired })
        }
      }
      held.drain(subscription)
      t.strictSame(Object.fromEntries(held.versions), versionsOf(set))
    }),
    { numRuns: 300 },
  )
  t.end()
})

await t.test('a follower by name ends up with what its names mean, however it gets there', t => {
  const asking = fc.oneof(
    step,
    fc.record({ kind: fc.constant('subscribe' as const), key: fc.nat(5) }),
    fc.record({ kind: fc.constant('unsubscribe' as const), key: fc.nat(5) }),
  )
  // Keys 0 to 3 are resources, 4 an alias of r4 and r5, 5 a group with r6 and r7 in it.
  const keyOf = (key: number) => (key < 4 ? `r${key}` : key === 4 ? '/alias' : 'group')
  fc.assert(
    fc.property(
      fc.array(asking, { maxLength: 60 }),
      fc.constantFrom(1, 600, 1_000_000),
      (steps, maxBytes) => {
        const set = new ResourceSet(TYPE)
        const held = new Held()
        const wanted = new Set<string>()
        const nothing = request({ subscribe: ['*'], unsubscribe: ['*'] })
        const subscription = new Subscription(set, nothing, { maxBytes, expired })
        for (const { kind, ...what } of steps) {
          const at = 'name' in what ? what.name : 0
          const key = keyOf('key' in what ? what.key : 0)
          const name = `r${at}`
          if (kind === 'put') {
            const aliases = at === 4 || at === 5 ? ['/alias'] : []
            const groups = at > 5 ? ['group'] : []
            set.put(name, content(`${name}-${'value' in what ? what.value : ''}`, { aliases, groups }))
          }
          if (kind === 'remove') set.remove(name)
          if (kind === 'take') held.drain(subscription, 1000)
          if (kind === 'subscribe') {
            wanted.add(key)
            subscription.update(request({ subscribe: [key] }))
          }
          if (kind === 'unsubscribe') {
            wanted.delete(key)
            subscription.update(request({ unsubscribe: [key] }))
          }
        }
        held.drain(subscription)
        const meant = new Map<string, string>()
        for (const key of wanted) for (const { name, version } of set.lookup(key)) meant.set(name, version)
        for (const [name, version] of meant) t.equal(held.versions.get(name), version, name)
        for (const name of held.versions.keys()) if (wanted.has(name)) t.ok(set.get(name), `${name} is there`)
      },
    ),
    { numRuns: 300 },
  )
  t.end()
})

await t.test('the first answer comes even when it is empty, later ones only with news', t => {
  const set = new ResourceSet(TYPE)
  const subscription = new Subscription(set, request(), { maxBytes: 1000, expired })
  t.strictSame({ ...subscription.take() }, { resources: [], removed: [] })
  t.equal(subscription.take(), undefined)
  set.put('a', content('1'))
  t.notOk(set.put('a', content('1')), 'the same again is no news')
  t.equal(subscription.take()?.resources.length, 1)
  t.equal(subscription.take(), undefined)
  t.end()
})

await t.test('what a subscription takes at once is bounded', t => {
  const set = new ResourceSet(TYPE)
  for (let at = 0; at < 1000; at++) set.put(`r${at}`, content(`${at} ${'x'.repeat(1000)}`))
  const held = new Held()
  const subscription = new Subscription(set, request(), { maxBytes: 20_000, expired })
  t.ok(held.drain(subscription) >= 50)
  t.ok(held.largest <= 20)
  t.equal(held.versions.size, 1000)
  t.end()
})

await t.test('history stays as small as what there is, and one who lags too far starts over', t => {
  const set = new ResourceSet(TYPE)
  let expired = 0
  const lagging = new Subscription(set, request(), { maxBytes: 1000, expired: () => expired++ })
  lagging.take()
  const following = new Subscription(set, request(), {
    maxBytes: 1_000_000,
    expired: () => t.fail('this one follows'),
  })
  for (let at = 0; at < 250_000; at++) {
    set.put(`r${at}`, content(`${at}`))
    set.remove(`r${at}`)
    if (at % 1000 === 0) following.take()
  }
  following.take()
  t.equal(expired, 1)
  t.ok([...set.since(0)].length < 110_000, 'removals that nobody waits for are forgotten')
  t.end()
})

await t.test('one client cannot ask for names without end', t => {
  const set = new ResourceSet(TYPE)
  const subscription = new Subscription(set, request({ subscribe: ['a'] }), { maxBytes: 1000, expired })
  t.throws(() => subscription.update(request({ subscribe: ['x'.repeat(2000)] })), { code: 'INPUT' })
  const many = Array.from({ length: 50_001 }, (_, at) => `${at}`)
  t.throws(() => subscription.update(request({ subscribe: many })), { code: 'INPUT' })
  t.end()
})
