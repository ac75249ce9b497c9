import * as fc from 'fast-check'
import { BlockList, isIP, isIPv4 } from 'node:net'
import t from 'tap'
import {
  bytesFromIp,
  canonicalIp,
  Cidr,
  formatAddress,
  ipFromBytes,
  ipv4Number,
  isLoopback,
  parseAddress,
} from '../../lib/address.ts'
import { codePoint } from '../helpers/code-point.ts'

const NOT_AN_ADDRESS = { name: 'CulvertError', code: 'ADDRESS' }

await t.test('every notation of an address becomes one text', async t => {
  for (const [text, canonical] of [
    ['10.0.0.1', '10.0.0.1'],
    ['::', '::'],
    ['0:0:0:0:0:0:0:1', '::1'],
    ['FD00:0000::00A1', 'fd00::a1'],
    ['1::8:0:0:1', '1::8:0:0:1'],
    ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
    ['1:0:2:3:4:5:6:7', '1:0:2:3:4:5:6:7'],
    ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0'],
    ['::2:3:4:5:6:7:8', '0:2:3:4:5:6:7:8'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
    ['::1.2.3.4', '::102:304'],
    ['::ffff:10.0.0.1', '10.0.0.1'],
    ['::FFFF:a00:1', '10.0.0.1'],
  ] as const)
    t.equal(canonicalIp(text), canonical, text)
})

await t.test('what is no address is refused with its text', async t => {
  for (const text of [
    '',
    'localhost',
    '10.0.0',
    '010.0.0.1',
    '10.0.0.256',
    ':::',
    '1::2::3',
    'fe80::1%eth0',
    '[::1]',
  ]) {
    t.throws(() => canonicalIp(text), { ...NOT_AN_ADDRESS, message: `not an IP address: '${text}'` }, text)
    t.throws(() => bytesFromIp(text), NOT_AN_ADDRESS)
  }
  t.throws(() => ipFromBytes(new Uint8Array(5)), NOT_AN_ADDRESS)
})

await t.test('IPv4 text is what Node takes for it, and its bits are those of its bytes', async () => {
  const almost = fc
    .array(fc.oneof(fc.integer({ min: 0, max: 300 }).map(String), fc.constantFrom('', '00', '01', 'a', ' 1')))
    .map(parts => parts.join('.'))
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), almost, fc.string({ unit: codePoint() })), text => {
      const bits = ipv4Number(text)
      if (!isIPv4(text)) return bits === -1
      return (
        text.split('.').every((part, at) => Number(part) === ((bits >>> (24 - at * 8)) & 0xff)) && bits >= 0
      )
    }),
  )
})

await t.test('an address with a port is what a stricter reading of the text gives', async () => {
  const wanted = (text: string) => {
    const match = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})$/.exec(text)
    const host = match?.[1] ?? match?.[2] ?? ''
    const port = Number(match?.[3])
    const isRight = isIP(host) === (match?.[1] === undefined ? 4 : 6) && port >= 1 && port <= 65_535
    return isRight ? { ip: canonicalIp(host), port } : undefined
  }
  const host = fc.oneof(
    fc.ipV4(),
    fc.ipV6(),
    fc.ipV6().map(ip => `[${ip}]`),
    fc.string({ maxLength: 3 }),
  )
  const port = fc.oneof(fc.integer({ min: 0, max: 70_000 }).map(String), fc.string({ maxLength: 6 }))
  fc.assert(
    fc.property(host, fc.constantFrom(':', ':', ':', '', '::'), port, (ip, colon, at) => {
      const text = `${ip}${colon}${at}`
      const [read, right] = [parseAddress(text), wanted(text)]
      return read?.ip === right?.ip && read?.port === right?.port
    }),
    { numRuns: 1000 },
  )
})

/** RFC 5952 by an engine of somebody else: a URL's host is serialized by the same rules. */
function canonicalByUrl(text: string): string {
  return new URL(`http://[${text}]/`).hostname.slice(1, -1)
}

await t.test('IPv6 text is what a URL parser makes of it', async () => {
  // Few distinct groups, so that runs of zeroes of every length and place come up.
  const group = fc.constantFrom('0', '0', '0', '1', 'ffff', 'a0', '0b')
  const sparse = fc.array(group, { minLength: 8, maxLength: 8 }).map(groups => groups.join(':'))
  fc.assert(
    fc.property(fc.oneof(fc.ipV6(), sparse), text => {
      const canonical = canonicalIp(text)
      return isIP(canonical) === 4
        ? canonicalByUrl(text) === canonicalByUrl(`::ffff:${canonical}`)
        : canonical === canonicalByUrl(text)
    }),
    { numRuns: 1000 },
  )
})

await t.test('bytes and text are two forms of the same', async () => {
  const bytes = fc.oneof(
    fc.uint8Array({ minLength: 4, maxLength: 4 }),
    fc.uint8Array({ minLength: 16, maxLength: 16 }),
  )
  fc.assert(
    fc.property(bytes, bytes => {
      const text = ipFromBytes(bytes)
      return canonicalIp(text) === text && Buffer.compare(bytesFromIp(text), bytes) === 0
    }),
  )
})

await t.test('socket addresses are read as they are written', async t => {
  t.equal(formatAddress('10.0.0.1', 80), '10.0.0.1:80')
  t.equal(formatAddress('fd00::1', 80), '[fd00::1]:80')
  t.strictSame(parseAddress('[FD00:0::1]:443'), { ip: 'fd00::1', port: 443 })
  t.strictSame(parseAddress('[::ffff:10.0.0.1]:443'), { ip: '10.0.0.1', port: 443 })
  for (const text of [
    '',
    '10.0.0.1',
    '10.0.0.1:',
    '10.0.0.1:0',
    '10.0.0.1:65536',
    '10.0.0.1:+80',
    '10.0.0.1:80 ',
    '10.0.0.1:80\n',
    '10.0.0.01:80',
    '[10.0.0.1]:80',
    '[fe80::1%eth0]:80',
    'fd00::1:80',
    '[fd00::1]',
    'echo.shop.svc:80',
  ])
    t.equal(parseAddress(text), undefined, JSON.stringify(text))
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), fc.integer({ min: 1, max: 65_535 }), (ip, port) => {
      const read = parseAddress(formatAddress(ip, port))
      return read?.ip === canonicalIp(ip) && read.port === port
    }),
  )
})

await t.test('any text is a socket address or not, without an error', async () => {
  const piece = fc.constantFrom('10.0.0.1', '[', ']', '::', ':', '80', 'fd00', '.', '%', '\u0661')
  const text = fc.oneof(
    fc.string(),
    fc.array(piece).map(pieces => pieces.join('')),
  )
  fc.assert(fc.property(text, text => (parseAddress(text)?.port ?? 1) > 0))
})

await t.test('loopback is a whole IPv4 range and one IPv6 address', async t => {
  for (const ip of ['127.0.0.1', '127.255.0.3', '::1']) t.ok(isLoopback(ip), ip)
  for (const ip of ['128.0.0.1', '12.7.0.0', '::', '::2']) t.notOk(isLoopback(ip), ip)
})

await t.test('a CIDR is written with its host bits cleared', async t => {
  for (const [text, canonical] of [
    ['10.1.2.3/8', '10.0.0.0/8'],
    ['10.1.2.3', '10.1.2.3/32'],
    [' 10.1.2.3/31 ', '10.1.2.2/31'],
    ['0.0.0.0/0', '0.0.0.0/0'],
    ['FD00::1/8', 'fd00::/8'],
    ['fd00::1', 'fd00::1/128'],
    ['::/0', '::/0'],
  ] as const)
    t.equal(Cidr.parse(text).text, canonical, text)
})

await t.test('a CIDR of IPv4-mapped addresses is one of IPv4, as the addresses are', async t => {
  for (const [text, canonical, inside] of [
    ['::ffff:10.0.0.0/104', '10.0.0.0/8', '10.9.8.7'],
    ['::ffff:10.0.0.1', '10.0.0.1/32', '10.0.0.1'],
    ['::ffff:0:0/96', '0.0.0.0/0', '192.0.2.1'],
  ] as const) {
    const cidr = Cidr.parse(text)
    t.equal(cidr.text, canonical)
    t.ok(cidr.contains(inside))
    t.equal(Cidr.parse(cidr.text).text, cidr.text, 'its text is read again')
  }
  t.equal(Cidr.parse('::ffff:0:0/95').text, '::fffe:0:0/95', 'one bit less, and it is more than IPv4')
})

await t.test('what is no CIDR is refused', async t => {
  for (const text of [
    '',
    '/8',
    '10.0.0.0/',
    '10.0.0.0/33',
    '10.0.0.0/-1',
    '10.0.0.0/+8',
    '10.0.0.0/8/8',
    'fd00::/129',
  ])
    t.throws(() => Cidr.parse(text), { ...NOT_AN_ADDRESS, message: `not a CIDR: '${text}'` }, text)
  t.throws(() => Cidr.parse('fe80::%eth0/64'), NOT_AN_ADDRESS)
  for (const prefix of [-1, 33, 1.5, NaN])
    t.throws(() => Cidr.fromBytes(new Uint8Array(4), prefix), NOT_AN_ADDRESS, `prefix ${prefix}`)
  t.throws(() => Cidr.fromBytes(new Uint8Array(3), 8), NOT_AN_ADDRESS)
})

await t.test('a CIDR holds the addresses that node:net says it holds', async () => {
  const v4 = fc.tuple(fc.constant('ipv4' as const), fc.ipV4(), fc.ipV4(), fc.integer({ min: 0, max: 32 }))
  const v6 = fc.tuple(fc.constant('ipv6' as const), fc.ipV6(), fc.ipV6(), fc.integer({ min: 0, max: 128 }))
  fc.assert(
    fc.property(fc.oneof(v4, v6), fc.nat({ max: 127 }), ([family, net, other, prefix], flipped) => {
      const list = new BlockList()
      list.addSubnet(net, prefix, family)
      const cidr = Cidr.parse(`${net}/${prefix}`)
      // An address near the edge: the network's own with one bit turned over.
      const near = bytesFromIp(net)
      near[Math.floor(flipped / 8) % near.length]! ^= 1 << (flipped % 8)
      return [net, other, ipFromBytes(near)].every(ip => {
        const canonical = canonicalIp(ip)
        const asFamily = isIP(canonical) === 4 ? 'ipv4' : 'ipv6'
        return asFamily !== family || cidr.contains(canonical) === list.check(canonical, family)
      })
    }),
    { numRuns: 1000 },
  )
})

await t.test('an address of the other family is outside', async t => {
  t.notOk(Cidr.parse('::/0').contains('10.0.0.1'))
  t.notOk(Cidr.parse('0.0.0.0/0').contains('::1'))
})
