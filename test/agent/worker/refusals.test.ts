import * as fc from 'fast-check'
import t from 'tap'
import { Outbox } from '../../../agent/worker/outbox.ts'
import type { FromWorker } from '../../../agent/worker/messages.ts'
import { Refusals } from '../../../agent/worker/refusals.ts'
import { REASONS } from '../../../lib/reasons.ts'
import { connectionRecord } from '../../helpers/records.ts'

const inbound = { direction: 'inbound', reason: 'strict' } as const

await t.test('refusals are counted by pod, reason, peer and port', t => {
  const refusals = new Refusals()
  for (let at = 0; at < 3; at++) refusals.closed(connectionRecord(inbound))
  refusals.closed(connectionRecord({ ...inbound, reason: 'policy' }))
  refusals.closed(connectionRecord({ ...inbound, podUid: 'pod-2' }))
  refusals.closed(connectionRecord({ ...inbound, source: { ip: '192.0.2.7', port: 5 } }))
  const common = { podUid: 'pod-1', direction: 'inbound', reason: 'strict', port: 8080, count: 1 }
  t.strictSame(refusals.take(), [
    { ...common, peer: 'shop/client', count: 3 },
    { ...common, peer: 'shop/client', reason: 'policy' },
    { ...common, peer: 'shop/client', podUid: 'pod-2' },
    { ...common, peer: '192.0.2.7' },
  ])
  t.strictSame(refusals.take(), [])
  t.end()
})

await t.test('of calls of the pod itself the other end is the destination', t => {
  const refusals = new Refusals()
  refusals.closed(connectionRecord({ reason: 'strict' }))
  t.match(refusals.take(), [{ direction: 'outbound', peer: 'shop/server', port: 8080 }])
  t.end()
})

await t.test('what was carried, or could not be, or the other side refused, is not told', t => {
  const refusals = new Refusals()
  for (const direction of ['inbound', 'outbound'] as const)
    for (const reason of REASONS) refusals.closed(connectionRecord({ direction, reason }))
  t.strictSame(
    refusals.take().map(({ direction, reason }) => `${direction} ${reason}`),
    ['inbound strict', 'inbound policy', 'inbound identity', 'outbound strict', 'outbound identity'],
  )
  t.end()
})

await t.test('however many peers call, there are not more kinds than the cap, and none is lost', t => {
  const calls = fc.array(
    fc.record({ pod: fc.integer({ min: 0, max: 3 }), ip: fc.ipV4(), port: fc.integer({ min: 1, max: 9 }) }),
    { maxLength: 100 },
  )
  fc.assert(
    fc.property(calls, calls => {
      const refusals = new Refusals(10)
      for (const { pod, ip, port } of calls)
        refusals.closed(
          connectionRecord({
            ...inbound,
            podUid: `pod-${pod}`,
            source: { ip, port: 1 },
            destination: { ip: '10.0.0.1', port },
          }),
        )
      const counts = refusals.take()
      const pods = new Set(counts.map(({ podUid }) => podUid))
      const total = counts.reduce((sum, { count }) => sum + count, 0)
      return total === calls.length && counts.length <= 10 + pods.size
    }),
  )
  t.end()
})

await t.test('a thread tells of them with the rest', async t => {
  const told = Promise.withResolvers<FromWorker>()
  const box = new Outbox({ level: 'fatal', fields: {} }, told.resolve)
  box.closed(connectionRecord({ ...inbound, error: 'refused' }))
  t.match(await told.promise, {
    type: 'several',
    messages: [{ type: 'traffic' }, { type: 'refusals', refusals: [{ reason: 'strict', count: 1 }] }],
  })
})
