import * as fc from 'fast-check'
import t from 'tap'
import { MAX_INTEGER_BYTES, readInteger, writeInteger } from '../../../../agent/hbone/hpack/integer.ts'
import { CulvertError } from '../../../../lib/errors.ts'
import { fromHex } from '../../../helpers/hpack.ts'

await t.test('what is written is read again, whatever the prefix and the bits above it', async () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 8 }),
      fc.nat({ max: 2 ** 28 }),
      fc.nat({ max: 255 }),
      (bits, value, junk) => {
        const pattern = (junk >> bits) << bits
        const out = new Uint8Array(MAX_INTEGER_BYTES)
        const end = writeInteger(out, 0, bits, pattern, value)
        const cursor = { bytes: out, at: 0 }
        return readInteger(cursor, bits) === value && cursor.at === end && out[0]! >> bits === pattern >> bits
      },
    ),
  )
})

await t.test('the largest table size that a SETTINGS frame can name is written in six bytes', async t => {
  const out = new Uint8Array(MAX_INTEGER_BYTES)
  t.equal(writeInteger(out, 0, 5, 0x20, 2 ** 32 - 1), MAX_INTEGER_BYTES)
  let value = 31
  for (const [at, byte] of out.subarray(1).entries()) value += (byte & 0x7f) * 2 ** (7 * at)
  t.equal(value, 2 ** 32 - 1)
})

await t.test('an integer may be padded with zeroes, within its length', async t => {
  t.equal(readInteger({ bytes: fromHex('1f 80 80 80 00'), at: 0 }, 5), 31)
})

await t.test('an integer that is too long or cut off is an error', async t => {
  for (const hex of [
    '1f 80 80 80 80 00',
    '1f ff ff ff ff 0f',
    'ff ff ff ff ff ff ff ff ff ff',
    '1f',
    '1f 80',
    '',
  ])
    t.throws(
      () => readInteger({ bytes: fromHex(hex), at: 0 }, 5),
      { name: 'CulvertError', code: 'PROTOCOL' },
      hex,
    )
})

await t.test('any bytes are an integer of at most 29 bits within them, or an error', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 8 }), fc.integer({ min: 1, max: 8 }), (bytes, bits) => {
      const cursor = { bytes, at: 0 }
      try {
        const value = readInteger(cursor, bits)
        return Number.isInteger(value) && value >= 0 && value < 2 ** 29 && cursor.at <= bytes.length
      } catch (err) {
        return err instanceof CulvertError && err.code === 'PROTOCOL'
      }
    }),
    { numRuns: 3000 },
  )
})
