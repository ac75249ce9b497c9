import * as fc from 'fast-check'
import t from 'tap'
import { CODE, StreamResetError } from '../../../agent/hbone/protocol.ts'
import { failureOf, refusal } from '../../../agent/proxy/failure.ts'
import { CulvertError } from '../../../lib/errors.ts'
import { REFUSED } from '../../../lib/reasons.ts'
import { codePoint } from '../../helpers/code-point.ts'

const cause = (code: string) => Object.assign(new Error(code), { code })

await t.test('an answer other than 200 has the word and the next step that its status means', t => {
  t.match(refusal(401, new Map()), { reason: 'policy', errorCode: 'HTTP_401', next: 'give-up' })
  t.match(refusal(400, new Map()), { reason: 'unreachable', errorCode: 'HTTP_400', next: 'give-up' })
  t.match(refusal(503, new Map([['culvert-error', 'ECONNREFUSED']])), {
    reason: 'unreachable',
    error: 'peer answered 503 (ECONNREFUSED)',
    errorCode: 'ECONNREFUSED',
    next: 'try-other',
  })
  t.end()
})

await t.test('what a peer says of its reasons is bounded and fit for a log', t => {
  fc.assert(
    fc.property(
      fc.integer({ min: 201, max: 599 }),
      fc.string({ unit: codePoint(), maxLength: 400 }),
      (status, said) => {
        const { error, errorCode } = refusal(status, new Map([['culvert-error', said]]))
        return error.length < 160 && !/\p{C}/u.test(error) && /^[A-Z0-9_]{1,24}$/.test(errorCode ?? '')
      },
    ),
  )
  t.end()
})

await t.test('each way a connection can fail has its word and its next step', t => {
  const reset = (byPeer: boolean) => new StreamResetError(CODE.refusedStream, 'reset', { byPeer })
  const cases: [thrown: unknown, reason: string, errorCode: string | undefined, next: string][] = [
    [reset(true), 'unreachable', 'STREAM_RESET', 'try-again'],
    [reset(false), 'unreachable', 'STREAM_RESET', 'give-up'],
    [new CulvertError('IDENTITY', 'x'), 'identity', 'IDENTITY', 'try-other'],
    [new CulvertError('TLS', 'x', { cause: cause('ECONNRESET') }), 'tls', 'ECONNRESET', 'try-again'],
    [
      new CulvertError('TLS', 'x', { cause: cause('CERT_HAS_EXPIRED') }),
      'tls',
      'CERT_HAS_EXPIRED',
      'try-other',
    ],
    [new CulvertError('TIMEOUT', 'x'), 'tls', 'TIMEOUT', 'try-other'],
    [new CulvertError('CA', 'x'), 'tls', 'CA', 'try-other'],
    [
      new CulvertError('UNREACHABLE', 'x', { cause: cause('ECONNREFUSED') }),
      'unreachable',
      'ECONNREFUSED',
      'try-other',
    ],
    [
      new CulvertError('UNREACHABLE', 'x', { cause: cause('ECONNRESET') }),
      'unreachable',
      'ECONNRESET',
      'try-again',
    ],
    [new CulvertError('CLOSED', 'x'), 'unreachable', 'CLOSED', 'give-up'],
    [new Error('x'), 'unreachable', undefined, 'give-up'],
    ['x', 'unreachable', undefined, 'give-up'],
    [undefined, 'unreachable', undefined, 'give-up'],
  ]
  for (const [thrown, reason, errorCode, next] of cases)
    t.match(failureOf(thrown), { reason, errorCode, next }, `${String(thrown)} ${errorCode}`)
  t.end()
})

await t.test('whatever is thrown, there is a word of the vocabulary for it', t => {
  fc.assert(fc.property(fc.anything(), thrown => REFUSED.includes(failureOf(thrown).reason)))
  t.end()
})
