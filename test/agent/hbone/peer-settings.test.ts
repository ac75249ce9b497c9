import * as fc from 'fast-check'
import t from 'tap'
import { PeerSettings } from '../../../agent/hbone/peer-settings.ts'
import { CODE, MAX_WINDOW, SETTING, SessionError } from '../../../agent/hbone/protocol.ts'
import type { Side } from '../../../agent/hbone/session-end.ts'

const SIDES: readonly Side[] = ['client', 'server']

type Pair = [id: number, value: number]

function payload(pairs: readonly Pair[]): Buffer {
  const bytes = Buffer.alloc(pairs.length * 6)
  pairs.forEach(([id, value], at) => {
    bytes.writeUInt16BE(id, at * 6)
    bytes.writeUInt32BE(value, at * 6 + 2)
  })
  return bytes
}

await t.test(
  'the last of each counts, and the change of the window is what open streams are given',
  async t => {
    const settings = new PeerSettings('server')
    const change = settings.apply(
      payload([
        [SETTING.initialWindowSize, 1],
        [SETTING.maxConcurrentStreams, 7],
        [SETTING.initialWindowSize, 65_535 + 1000],
        [0x9999, 5],
      ]),
    )
    t.equal(change, 1000)
    t.match(settings, { initialWindow: 66_535, maxStreams: 7, maxFrame: 16_384, headerTableSize: undefined })
  },
)

await t.test(
  'any SETTINGS are taken within the limits of RFC 9113 §6.5.2, or refused with its code',
  async () => {
    const id = fc.oneof(fc.constantFrom(...Object.values(SETTING)), fc.nat({ max: 0xffff }))
    const value = fc.oneof(
      fc.constantFrom(
        0,
        1,
        2,
        16_383,
        16_384,
        0xff_ffff,
        0x100_0000,
        MAX_WINDOW,
        MAX_WINDOW + 1,
        0xffff_ffff,
      ),
      fc.nat({ max: 0xffff_ffff }),
    )
    fc.assert(
      fc.property(
        fc.array(fc.tuple(id, value), { maxLength: 10 }),
        fc.constantFrom(...SIDES),
        (pairs, side) => {
          const settings = new PeerSettings(side)
          const before = settings.initialWindow
          const why = pairs.map(pair => faultOf(pair, side)).find(fault => fault !== undefined)
          try {
            const change = settings.apply(payload(pairs))
            return (
              why === undefined &&
              change === settings.initialWindow - before &&
              settings.initialWindow <= MAX_WINDOW &&
              settings.maxFrame >= 16_384 &&
              settings.maxFrame <= 0xff_ffff
            )
          } catch (err) {
            if (!(err instanceof SessionError)) throw err
            return err.h2Code === why
          }
        },
      ),
      { numRuns: 2000 },
    )
  },
)

await t.test('the lowest table of a SETTINGS is kept beside the last, and only for that one', t => {
  const settings = new PeerSettings('client')
  const table = (...sizes: number[]) =>
    settings.apply(payload(sizes.map((size): Pair => [SETTING.headerTableSize, size])))
  table(8192, 100, 4096)
  t.match(settings, { headerTableSize: 4096, lowestTableSize: 100 })
  table(2000)
  t.match(settings, { headerTableSize: 2000, lowestTableSize: 2000 })
  table()
  t.match(settings, { headerTableSize: 2000, lowestTableSize: undefined })
  t.end()
})

/** The code that RFC 9113 names for a setting that may not be, of a peer of our `side`. */
function faultOf([id, value]: Pair, side: Side): number | undefined {
  if (id === SETTING.enablePush && value > (side === 'client' ? 0 : 1)) return CODE.protocolError
  if (id === SETTING.initialWindowSize && value > MAX_WINDOW) return CODE.flowControlError
  if (id === SETTING.maxFrameSize && (value < 16_384 || value > 0xff_ffff)) return CODE.protocolError
  return undefined
}
