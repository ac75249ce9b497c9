import * as fc from 'fast-check'
import { once } from 'node:events'
import net from 'node:net'
import t from 'tap'
import { CulvertError, errorCode, errorText } from '../../lib/errors.ts'

await t.test('an error has a code, a cause and a hint', async t => {
  const cause = new Error('connect ECONNREFUSED 10.0.0.1:15012')
  const err = new CulvertError('CA', 'no certificate for shop/client', {
    cause,
    hint: 'is the ca-server running?',
  })
  t.ok(err instanceof Error)
  t.match(err, { name: 'CulvertError', code: 'CA', message: 'no certificate for shop/client', cause })
  t.equal(err.hint, 'is the ca-server running?')
  t.notOk('cause' in new CulvertError('CA', 'text'), 'no cause is no property')
})

await t.test('the text of an error holds that of its causes, each once', async t => {
  const root = new Error('connect ECONNREFUSED 10.0.0.1:15012')
  t.equal(
    errorText(new CulvertError('CA', 'no certificate', { cause: root })),
    'no certificate: connect ECONNREFUSED 10.0.0.1:15012',
  )
  t.equal(errorText(new Error(`wrapped: ${root.message}`, { cause: root })), `wrapped: ${root.message}`)
  t.equal(errorText(new Error('', { cause: root })), `Error: ${root.message}`)
  t.equal(errorText(new Error('a', { cause: 'text' })), 'a: text')
  const ring = new Error('a')
  ring.cause = new Error('b', { cause: ring })
  t.equal(errorText(ring), 'a: b')
})

await t.test('what is thrown and is no error has a text too', async t => {
  t.equal(errorText('text'), 'text')
  t.equal(errorText(7), '7')
  t.equal(errorText(undefined), '')
  t.equal(errorText(null), '')
  t.equal(errorText(Symbol('s')), 'Symbol(s)')
  t.equal(errorText(Object.create(null)), '[object]')
})

await t.test('several errors in one are all named', async t => {
  const several = new AggregateError([
    new Error('connect ECONNREFUSED ::1:1'),
    new Error('connect ETIMEDOUT 10.0.0.1:1'),
  ])
  t.equal(errorText(several), 'connect ECONNREFUSED ::1:1, connect ETIMEDOUT 10.0.0.1:1')
  t.equal(
    errorText(new CulvertError('UNREACHABLE', 'ca-server', { cause: several })),
    'ca-server: connect ECONNREFUSED ::1:1, connect ETIMEDOUT 10.0.0.1:1',
  )
  t.equal(errorText(new AggregateError([new Error('port 1')], 'all failed')), 'all failed: port 1')
  t.equal(errorText(new AggregateError([])), 'AggregateError')
})

await t.test('a connection refused on every address of a name says so', async t => {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  server.close()
  await once(server, 'close')
  const lookup: net.LookupFunction = (_name, _options, found) =>
    found(null, [
      { address: '127.0.0.1', family: 4 },
      { address: '127.0.0.2', family: 4 },
    ])
  const [err] = await once(net.connect({ host: 'ca', port, lookup, autoSelectFamily: true }), 'error').catch(
    (err: unknown) => [err],
  )
  t.match(errorText(err), /ECONNREFUSED 127\.0\.0\.1:\d+, .*ECONNREFUSED 127\.0\.0\.2:\d+/)
  t.equal(errorCode(err), 'ECONNREFUSED')
})

await t.test('a code is a string, of whatever was thrown', async t => {
  t.equal(errorCode(new CulvertError('TLS', 'x')), 'TLS')
  t.equal(errorCode(Object.assign(new Error('x'), { code: 'ECONNRESET' })), 'ECONNRESET')
  for (const thrown of [new Error('x'), { code: 7 }, 'ECONNRESET', null, undefined])
    t.equal(errorCode(thrown), undefined)
})

await t.test('anything has a text and perhaps a code, without an error', async () => {
  fc.assert(
    fc.property(fc.anything({ withNullPrototype: true, withObjectString: true }), thrown => {
      errorCode(thrown)
      return typeof errorText(thrown) === 'string'
    }),
  )
})
