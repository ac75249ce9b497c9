import * as fc from 'fast-check'
import t from 'tap'
import { fileHeader, packetsOf, recordHeader } from '../../../lab/capture/pcap.ts'

await t.test('what was written reads back, and a cut file ends where it was cut', async t => {
  const packets = fc.array(fc.record({ timeMs: fc.nat(2 ** 31), bytes: fc.uint8Array({ maxLength: 100 }) }))
  const property = fc.property(packets, fc.nat(50), (packets, cut) => {
    const records = packets.map(({ timeMs, bytes }) =>
      Buffer.concat([recordHeader(timeMs, bytes.length, bytes.length), bytes]),
    )
    const whole = Buffer.concat([fileHeader(), ...records])
    const read = [...packetsOf(whole)]
    const part = [...packetsOf(whole.subarray(0, Math.max(24, whole.length - cut)))]
    return (
      read.length === packets.length &&
      read.every(
        ({ bytes, timeMs }, at) => bytes.equals(packets[at]!.bytes) && timeMs === packets[at]!.timeMs,
      ) &&
      part.every(({ bytes }, at) => bytes.equals(packets[at]!.bytes))
    )
  })
  t.doesNotThrow(() => fc.assert(property))
})
