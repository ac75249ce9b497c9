import t from 'tap'
import { newTraceparent } from '../../../agent/proxy/traceparent.ts'

await t.test('each is well-formed and like no other, past the end of the pool too', async t => {
  const seen = new Set(Array.from({ length: 2000 }, newTraceparent))
  t.equal(seen.size, 2000)
  t.strictSame(
    [...seen].filter(text => !/^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/.test(text)),
    [],
  )
  t.equal(new Set([...seen].map(text => text.slice(36, 52))).size, 2000, 'the span differs as the trace does')
})
