import * as fc from 'fast-check'
import t from 'tap'
import {
  attribute32,
  decodeAttributes,
  decodeMessages,
  encodeMessage,
  read32,
} from '../../../agent/sys/netlink.ts'

await t.test('what was encoded is decoded', async () => {
  const attributes = fc.uniqueArray(
    fc.record({ type: fc.integer({ min: 1, max: 0x3fff }), value: fc.uint8Array({ maxLength: 50 }) }),
    { selector: ({ type }) => type, maxLength: 8 },
  )
  fc.assert(
    fc.property(
      fc.integer({ min: 16, max: 0xffff }),
      fc.uint8Array({ maxLength: 20 }),
      attributes,
      (type, body, list) => {
        const [message, ...more] = decodeMessages(encodeMessage(type, 1, body, list))
        if (!message || more.length > 0 || message.type !== type) return false
        const decoded = decodeAttributes(message.body, body.length)
        return list.every(({ type, value }) =>
          Buffer.from(value).equals(decoded.get(type) ?? Buffer.of(1, 2, 3)),
        )
      },
    ),
  )
})

await t.test('several messages in one datagram are told apart', async t => {
  const both = Buffer.concat([
    encodeMessage(20, 0, Uint8Array.of(1, 2, 3)),
    encodeMessage(21, 0, new Uint8Array()),
  ])
  t.strictSame(
    decodeMessages(both).map(({ type, body }) => [type, body.length]),
    [
      [20, 4],
      [21, 0],
    ],
  )
})

await t.test('an attribute of 32 bits is read, an absent or short one is undefined', async t => {
  const [message] = decodeMessages(
    encodeMessage(20, 0, new Uint8Array(), [
      attribute32(3, 0xdeadbeef),
      { type: 4, value: Uint8Array.of(1) },
    ]),
  )
  const attributes = decodeAttributes(message!.body, 0)
  t.equal(read32(attributes, 3), 0xdeadbeef)
  t.equal(read32(attributes, 4), undefined)
  t.equal(read32(attributes, 5), undefined)
})

await t.test('any other bytes are read to an end without an error', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.integer({ min: 0, max: 20 }), (bytes, header) => {
      for (const { body } of decodeMessages(bytes)) decodeAttributes(body, header)
      decodeAttributes(bytes, header)
    }),
  )
})
