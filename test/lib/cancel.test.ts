import t from 'tap'
import { Cancel, type Cancellation } from '../../lib/cancel.ts'

/** Each must be true of Node's own, for which ours stands, and which will do in its place. */
const KINDS: readonly [string, () => { signal: Cancellation; abort: (reason: Error) => void }][] = [
  [
    'Cancel',
    () => {
      const cancel = new Cancel()
      return { signal: cancel, abort: reason => cancel.abort(reason) }
    },
  ],
  [
    'AbortSignal',
    () => {
      const controller = new AbortController()
      return { signal: controller.signal, abort: reason => controller.abort(reason) }
    },
  ],
]

const why = new Error('why')

for (const [kind, make] of KINDS) {
  await t.test(`${kind}: everyone who listens is told once, in order`, async t => {
    const { signal, abort } = make()
    const told: string[] = []
    for (const who of ['a', 'b', 'c']) signal.addEventListener('abort', () => told.push(who), { once: true })
    t.notOk(signal.aborted)
    signal.throwIfAborted()
    abort(why)
    abort(new Error('another'))
    t.strictSame(told, ['a', 'b', 'c'])
    t.ok(signal.aborted)
    t.equal(signal.reason, why)
    t.throws(() => signal.throwIfAborted(), why)
  })

  await t.test(`${kind}: it is aborted by the time it tells`, async t => {
    const { signal, abort } = make()
    let reason: unknown
    signal.addEventListener('abort', () => (reason = signal.aborted && signal.reason))
    abort(why)
    t.equal(reason, why)
  })

  await t.test(
    `${kind}: who listens no more is not told, even if another has seen to that meanwhile`,
    async t => {
      const { signal, abort } = make()
      const told: string[] = []
      const early = () => void told.push('early')
      const late = () => void told.push('late')
      signal.addEventListener('abort', early)
      signal.addEventListener('abort', () => {
        told.push('middle')
        signal.removeEventListener('abort', late)
        signal.removeEventListener('abort', early)
      })
      signal.addEventListener('abort', late)
      signal.addEventListener('abort', () => void told.push('last'))
      const stranger = () => undefined
      signal.removeEventListener('abort', stranger)
      abort(why)
      t.strictSame(told, ['early', 'middle', 'last'])
    },
  )

  await t.test(`${kind}: who asks to be told afterwards is not`, async t => {
    const { signal, abort } = make()
    let told = 0
    signal.addEventListener('abort', () => signal.addEventListener('abort', () => told++))
    abort(why)
    signal.addEventListener('abort', () => told++)
    t.equal(told, 0)
  })

  await t.test(`${kind}: what comes after it is aborted with it`, async t => {
    const { signal, abort } = make()
    const after = new Cancel(signal)
    const further = new Cancel(after)
    t.notOk(further.aborted)
    abort(why)
    t.equal(after.reason, why)
    t.equal(further.reason, why)
    t.equal(new Cancel(further).reason, why, 'at once, if it comes too late')
  })
}

await t.test('what is aborted by itself leaves that before it as it is', async t => {
  const before = new Cancel()
  const after = new Cancel(before)
  after.abort(why)
  t.notOk(before.aborted)
  before.abort(new Error('later'))
  t.equal(after.reason, why)
})

await t.test('without a reason there is still something to throw', async t => {
  const cancel = new Cancel()
  cancel.abort(undefined)
  t.throws(() => cancel.throwIfAborted(), { message: 'aborted' })
})
