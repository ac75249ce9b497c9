import * as fc from 'fast-check'
import t from 'tap'
import { formatForwarded, parseForwarded } from '../../../agent/proxy/forwarded.ts'
import { canonicalIp } from '../../../lib/address.ts'
import { codePoint } from '../../helpers/code-point.ts'

await t.test('the forms that mesh peers send', async t => {
  t.equal(formatForwarded({ for: { ip: '10.1.2.2', port: 51_234 } }), 'for="10.1.2.2:51234"')
  t.equal(formatForwarded({ for: { ip: '::1', port: 80 } }), 'for="[::1]:80"')
  t.equal(
    formatForwarded({ for: { ip: '10.1.2.2', port: 1 }, host: 'echo.shop.svc.cluster.local' }),
    'for="10.1.2.2:1";host=echo.shop.svc.cluster.local',
  )
  t.strictSame(parseForwarded('for="10.1.2.2:51234"'), { for: { ip: '10.1.2.2', port: 51_234 } })
  t.strictSame(parseForwarded('for="[::1]:80"'), { for: { ip: '::1', port: 80 } })
  t.strictSame(parseForwarded('for="10.1.2.2:1";host=echo.shop.svc.cluster.local'), {
    for: { ip: '10.1.2.2', port: 1 },
    host: 'echo.shop.svc.cluster.local',
  })
})

await t.test('other legal forms of RFC 7239', async t => {
  t.strictSame(parseForwarded('For="[2001:DB8:0::17]:4711"'), { for: { ip: '2001:db8::17', port: 4711 } })
  t.strictSame(parseForwarded('host="Echo.Shop";proto=http;by=203.0.113.43'), { host: 'echo.shop' })
  t.strictSame(parseForwarded('for=unknown'), {})
  t.strictSame(parseForwarded('for="_gazonk"'), {})
  t.strictSame(parseForwarded('for=192.0.2.60'), {}, 'an address without a port is no socket')
  t.strictSame(parseForwarded('for="1\\0.1.2.2:5"'), { for: { ip: '10.1.2.2', port: 5 } }, 'quoted pairs')
  t.strictSame(parseForwarded('for="[::ffff:10.0.0.1]:80"'), { for: { ip: '10.0.0.1', port: 80 } })
})

await t.test('what breaks the grammar is not read', async t => {
  for (const text of [
    '',
    ';',
    'for',
    'for=',
    'for="10.1.2.2:1',
    'for="10.1.2.2:1"x',
    'for=10.1.2.2:1',
    'for="10.1.2.2:1",for="10.1.2.3:1"',
    'for="10.1.2.2:1";for="10.1.2.3:1"',
    'for="10.1.2.2:1";FOR=unknown',
    'for="10.1.2.2:1" ;host=a',
    'for = "10.1.2.2:1"',
    'for="10.1.2.2:1\r\n"',
    'for="10.1.2.2:1\\',
    `host=${'a'.repeat(2000)}`,
  ])
    t.equal(parseForwarded(text), undefined, text.slice(0, 40) || 'nothing')
})

await t.test('a host that is no host name is not handed on', async t => {
  for (const host of [
    '"a b"',
    '"<script>"',
    '"a\\"b"',
    '-a',
    'a-',
    '*.shop',
    '"[::1]"',
    '"a:80"',
    'a'.repeat(254),
  ])
    t.strictSame(parseForwarded(`host=${host}`), {}, host.slice(0, 40))
  t.equal(formatForwarded({ host: 'a b' }), '')
  t.equal(formatForwarded({ for: { ip: '10.0.0.1', port: 1 }, host: 'a";for=x' }), 'for="10.0.0.1:1"')
})

await t.test('what is written is read again', async () => {
  const ip = fc.oneof(fc.ipV4(), fc.ipV6().map(canonicalIp))
  const port = fc.integer({ min: 1, max: 65_535 })
  fc.assert(
    fc.property(
      ip,
      port,
      fc.option(
        fc.domain().map(name => name.toLowerCase()),
        { nil: undefined },
      ),
      (ip, port, host) => {
        const forwarded = { for: { ip, port }, ...(host !== undefined && { host }) }
        return JSON.stringify(parseForwarded(formatForwarded(forwarded))) === JSON.stringify(forwarded)
      },
    ),
  )
})

await t.test('any text is read or not, without an error, and what is read can be written', async () => {
  const piece = fc.constantFrom(
    'for',
    'host',
    '=',
    ';',
    ',',
    '"',
    '\\',
    '10.0.0.1:80',
    '[::1]:80',
    'shop.svc',
    ' ',
    'x',
  )
  const text = fc.oneof(
    fc.string({ unit: codePoint() }),
    fc.array(piece, { maxLength: 20 }).map(pieces => pieces.join('')),
  )
  fc.assert(
    fc.property(text, text => {
      const read = parseForwarded(text)
      if (!read || (!read.for && !read.host)) return true
      return JSON.stringify(parseForwarded(formatForwarded(read))) === JSON.stringify(read)
    }),
    { numRuns: 2000 },
  )
})
