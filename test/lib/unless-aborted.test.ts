import t from 'tap'
import { unlessAborted } from '../../lib/unless-aborted.ts'

const reason = new Error('enough')

await t.test('what ends before is given, or thrown', async t => {
  const { signal } = new AbortController()
  t.equal(await unlessAborted(Promise.resolve(1), signal), 1)
  await t.rejects(unlessAborted(Promise.reject(reason), signal), reason)
})

await t.test('what does not is left alone', async t => {
  const stop = new AbortController()
  const { promise, reject } = Promise.withResolvers<void>()
  const waiting = unlessAborted(promise, stop.signal)
  stop.abort(reason)
  await t.rejects(waiting, reason)
  reject(new Error('too late: nobody hears of it'))
  await t.rejects(unlessAborted(Promise.resolve(1), stop.signal), reason, 'nor is it begun with')
})
