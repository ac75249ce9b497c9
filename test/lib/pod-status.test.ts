import { isDeepStrictEqual } from 'node:util'
import * as fc from 'fast-check'
import t from 'tap'
import { formatPodStatus, parsePodStatus, POD_STATES, statusDetail } from '../../lib/pod-status.ts'
import { codePoint } from '../helpers/code-point.ts'

const SINCE = Date.parse('2026-11-28T12:34:56Z')

await t.test('a status is one line that people can read', async t => {
  t.equal(
    formatPodStatus({ state: 'enrolled', detail: '', sinceMs: SINCE + 789 }),
    'enrolled (since 2026-11-28T12:34:56Z)',
  )
  t.equal(
    formatPodStatus({ state: 'pending', detail: ' waiting\nfor a certificate ', sinceMs: SINCE }),
    'pending: waiting?for a certificate (since 2026-11-28T12:34:56Z)',
  )
})

await t.test('what was formatted is parsed again, whatever the detail holds', async () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...POD_STATES),
      fc.oneof(
        fc.string({ unit: codePoint(), maxLength: 300 }),
        fc.constant('x (since 2020-01-01T00:00:00Z)'),
      ),
      fc.integer({ min: 0, max: Date.parse('9999-12-31T23:59:59Z') }),
      (state, detail, sinceMs) => {
        const text = formatPodStatus({ state, detail, sinceMs })
        const expected = { state, detail: statusDetail(detail), sinceMs: Math.floor(sinceMs / 1000) * 1000 }
        return isDeepStrictEqual(parsePodStatus(text), expected)
      },
    ),
  )
})

await t.test('what is in no such format says nothing, and nothing breaks the parser', async t => {
  for (const text of [
    undefined,
    '',
    'enrolled',
    'gone (since 2026-11-28T12:34:56Z)',
    'not-enrolled (since 2026-11-28T12:34:56Z)',
    'enrolled: (since 2026-11-28T12:34:56Z)',
    'enrolled (since 2026-13-28T12:34:56Z)',
    'enrolled (since 2026-11-28T12:34:56+01:00)',
    'enrolled (since 2026-11-28T12:34:56Z) ',
    `pending: ${'x'.repeat(1000)} (since 2026-11-28T12:34:56Z)`,
  ])
    t.equal(parsePodStatus(text), undefined, `${text}`)
  fc.assert(
    fc.property(fc.string({ unit: codePoint() }), text => {
      const status = parsePodStatus(text)
      return status === undefined || POD_STATES.includes(status.state)
    }),
  )
})
