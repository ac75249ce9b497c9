import assert from 'node:assert/strict'
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

/**
 * Resources of every relation: r3 is a service with an address, r5 to r7 may be its endpoints; r4 to r6 may have an
 * address that they share. What they have depends on their value, so that it comes and goes.
 */
function related(at: number, value: number): ResourceContent {
  const aliases = [
    ...(at === 3 && value !== 1 ? ['/vip'] : []),
    ...(at > 3 && at < 7 && value > 1 ? ['/ip'] : []),
  ]
  return content(`r${at}-${value}`, { aliases, groups: at > 4 && value !== 2 ? ['r3', 'node n'] : [] })
}
const KEYS = ['r0', 'r1', 'r3', 'r6', '/ip', '/vip', 'node n', 'nothing']

/** What the names asked for were answered with, and what was held when they were. */
class Answers {
  readonly known = new Map<string, 'found' | 'absent'>()

  /** Gives an error when something was answered before all that it stands for was there. */
  drain(held: Held, subscription: Subscription, set: ResourceSet, limit = 1000): string | undefined {
    for (let taken = 0; taken < limit; taken++) {
      const portion = subscription.take()
      if (!portion) return undefined
      for (const name of portion.removed) {
        held.versions.delete(name)
        this.known.set(name, 'absent')
      }
      for (const { name, version } of portion.resources) {
        const isAlias = name.startsWith('/')
        if (!isAlias) held.versions.set(name, version)
        this.known.set(name, 'found')
        const missing = isAlias
          ? [...set.lookup(name)].find(each => held.versions.get(each.name) !== each.version)
          : undefined
        if (missing) return `${name} was answered before ${missing.name} was there`
      }
    }
    return 'there is no end of portions'
  }
}

for (const canGiveUp of [false, true])
  await t.test(
    `a follower by name${canGiveUp ? ', who also gives names up,' : ''} has exactly what its names mean, and an answer to each`,
    t => {
      const asking = fc.oneof(
        { weight: 4, arbitrary: step },
        {
          weight: 2,
          arbitrary: fc.record({ kind: fc.constant('subscribe' as const), key: fc.nat(KEYS.length - 1) }),
        },
        ...(canGiveUp
          ? [
              {
                weight: 1,
                arbitrary: fc.record({
                  kind: fc.constant('unsubscribe' as const),
                  key: fc.nat(KEYS.length - 1),
                }),
              },
            ]
          : []),
      )
      const sizes = fc.constantFrom(1, 600, 1_000_000)
      const always = fc.constantFrom<string[]>([], ['node n'])
      const property = fc.property(
        fc.array(asking, { maxLength: 60 }),
        sizes,
        always,
        (steps, maxBytes, always) => {
          const set = new ResourceSet(TYPE)
          const held = new Held()
          const answers = new Answers()
          const wanted = new Set<string>()
          const options = { maxBytes, always, expired }
          const nothing = request({ subscribe: ['*'], unsubscribe: ['*'] })
          let subscription = new Subscription(set, nothing, options)
          for (const { kind, ...what } of steps) {
            const at = 'name' in what ? what.name : 0
            const key = KEYS['key' in what ? what.key : 0]!
            if (kind === 'put') set.put(`r${at}`, related(at, 'value' in what ? what.value : 0))
            if (kind === 'remove') set.remove(`r${at}`)
            if (kind === 'take') assert.equal(answers.drain(held, subscription, set), undefined)
            if (kind === 'subscribe') {
              wanted.add(key)
              answers.known.delete(key)
              subscription.update(request({ subscribe: [key] }))
            }
            if (kind === 'unsubscribe') {
              wanted.delete(key)
              subscription.update(request({ unsubscribe: [key] }))
            }
            if (kind === 'reconnect') {
              subscription.close()
              // Who holds what it asks for has its answer: it says so, and hears of it when it is no longer true.
              for (const name of wanted) if (held.versions.has(name)) answers.known.set(name, 'found')
              const subscribe = ['*', ...wanted]
              // One that names nothing else wants what it has.
              if (wanted.size === 0) for (const name of held.versions.keys()) wanted.add(name)
              const initial = Object.fromEntries(held.versions)
              subscription = new Subscription(
                set,
                request({ subscribe, unsubscribe: ['*'], initial }),
                options,
              )
            }
          }
          assert.equal(answers.drain(held, subscription, set), undefined)
          const meant = new Map<string, string>()
          for (const key of [...wanted, ...always])
            for (const { name, version } of set.lookup(key)) meant.set(name, version)
          const has = [...held.versions].filter(([name]) => !canGiveUp || meant.has(name))
          assert.deepEqual(new Map(has), meant)
          for (const key of wanted)
            assert.equal(answers.known.get(key), set.named(key).length > 0 ? 'found' : 'absent', key)
        },
      )
      t.doesNotThrow(() => fc.assert(property, { numRuns: 500 }))
      t.end()
    },
  )

await t.test('one who returns and names nothing but what it has is kept true to that', t => {
  const set = new ResourceSet(TYPE)
  for (const at of [0, 1, 3, 6]) set.put(`r${at}`, related(at, 0))
  const held = new Held()
  const initial = {
    r0: set.get('r0')!.version,
    r1: 'old',
    '/vip': set.get('r3')!.version,
    r3: 'old',
    gone: 'x',
  }
  const first = request({ subscribe: ['*'], unsubscribe: ['*'], initial })
  const subscription = new Subscription(set, first, { maxBytes: 1_000_000, expired })
  const portion = subscription.take()
  t.strictSame(portion?.resources.map(({ name }) => name).sort(), ['r1', 'r3', 'r6'])
  t.strictSame(portion?.removed, ['gone'])
  set.put('r3', related(3, 1))
  held.drain(subscription)
  t.strictSame([...held.versions.keys()], ['r3'], 'the address is not told of as found again')
  t.end()
})

await t.test('what changes costs a follower by name nothing that is none of its business', t => {
  const set = new ResourceSet(TYPE)
  for (let at = 0; at < 20_000; at++) set.put(`r${at}`, content(`${at}`, { aliases: [`/${at}`] }))
  const subscribe = Array.from({ length: 10_000 }, (_, at) => `/${at}`)
  const subscription = new Subscription(set, request({ subscribe }), { maxBytes: 1_000_000_000, expired })
  t.equal(subscription.take()?.resources.length, 20_000)
  let looks = 0
  const lookup = set.lookup.bind(set)
  set.lookup = name => (looks++, lookup(name))
  for (let at = 10_000; at < 11_000; at++) {
    set.put(`r${at}`, content(`${at} again`, { aliases: [`/${at}`] }))
    t.equal(subscription.take(), undefined)
  }
  set.put('r7', content('new', { aliases: ['/7'] }))
  t.strictSame(
    subscription.take()?.resources.map(({ name }) => name),
    ['r7'],
  )
  t.equal(looks, 0, 'nothing that is wanted is looked up because something else has changed')
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
