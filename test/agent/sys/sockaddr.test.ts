import * as fc from 'fast-check'
import t from 'tap'
import { canonicalIp } from '../../../lib/address.ts'
import { decodeSockaddr, encodeSockaddr } from '../../../agent/sys/sockaddr.ts'

await t.test('an address comes back as it was, for both families', async () => {
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), fc.integer({ min: 0, max: 65535 }), (text, port) => {
      const ip = canonicalIp(text)
      const decoded = decodeSockaddr(encodeSockaddr(ip, port))
      return decoded?.ip === ip && decoded.port === port
    }),
  )
})

await t.test('the bytes are those of the kernel', async t => {
  t.strictSame([...encodeSockaddr('10.1.2.3', 8080)], [2, 0, 0x1f, 0x90, 10, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0])
  const six = encodeSockaddr('fd00::1', 443)
  t.equal(six.length, 28)
  t.strictSame([...six.subarray(0, 10)], [10, 0, 1, 0xbb, 0, 0, 0, 0, 0xfd, 0])
})

await t.test('a mapped address becomes IPv4', async t => {
  const mapped = new Uint8Array(28)
  mapped.set([10, 0, 0, 80])
  mapped.set([0xff, 0xff, 192, 0, 2, 1], 18)
  t.strictSame(decodeSockaddr(mapped), { ip: '192.0.2.1', port: 80 })
})

await t.test('any other bytes give undefined or an address, never an error', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), bytes => {
      decodeSockaddr(bytes)
    }),
  )
})
