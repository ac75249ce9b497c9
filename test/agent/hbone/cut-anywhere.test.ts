/** Damaged connections, as the fuzzer makes them: what a reader makes of one does not hang on how the network cut it. */
import t from 'tap'
import { FrameReader, type FrameSink } from '../../../agent/hbone/frame-reader.ts'
import { PREFACE, SessionError } from '../../../agent/hbone/protocol.ts'
import { recordCaptures } from '../../fuzz/captures.ts'
import { makeCase } from '../../fuzz/cases.ts'

const at = (port: number) => `10.77.0.2:${port}`
const captures = await recordCaptures({ echo: at(7000), slow: at(7001), sink: at(7002), reset: at(7003) })
const CASES = 1500

/** What a reader says of the bytes, in the order it says it; pieces of DATA joined. */
function saidOf(pieces: readonly Buffer[]): string[] {
  const said: string[] = []
  let data: Buffer[] = []
  const sink: FrameSink = {
    dataBegin: (id, length) => {
      data = []
      said.push(`data ${id} ${length}`)
    },
    data: (_, piece) => void data.push(Buffer.from(piece)),
    dataEnd: (id, end, padding) =>
      void said.push(`end ${id} ${end} ${padding} ${Buffer.concat(data).toString('hex')}`),
    headers: (id, block, end) => void said.push(`headers ${id} ${end} ${block.toString('hex')}`),
    rstStream: (id, code) => void said.push(`rst ${id} ${code}`),
    settings: (isAck, payload) => void said.push(`settings ${isAck} ${payload.toString('hex')}`),
    pingFrame: (isAck, payload) => void said.push(`ping ${isAck} ${payload.toString('hex')}`),
    goawayFrame: (last, code, debug) => void said.push(`goaway ${last} ${code} ${debug.toString('hex')}`),
    windowUpdate: (id, increment) => void said.push(`window ${id} ${increment}`),
    ignored: type => void said.push(`ignored ${type}`),
  }
  const reader = new FrameReader(sink, 1024 * 1024)
  try {
    for (const piece of pieces) reader.push(Buffer.from(piece))
  } catch (err) {
    if (!(err instanceof SessionError)) throw err
    said.push(err.message)
  }
  return said
}

await t.test(`${CASES} damaged connections are read alike, whole and in pieces`, async t => {
  const sources = { captures, hellos: [Buffer.alloc(100, 1)], authorities: [at(7000)] }
  let read = 0
  for (let number = 0; read < CASES; number++) {
    const { kind, pieces } = makeCase(1, number, sources)
    if (kind !== 'to-server' && kind !== 'to-client') continue
    read++
    const bytes = Buffer.concat(pieces)
    const begin = bytes.subarray(0, PREFACE.length).equals(PREFACE) ? PREFACE.length : 0
    const whole = saidOf([bytes.subarray(begin)])
    let skip = begin
    const cut = pieces.flatMap(piece => {
      const rest = piece.subarray(Math.min(skip, piece.length))
      skip -= piece.length - rest.length
      return rest.length > 0 ? [rest] : []
    })
    if (whole.join('\n') !== saidOf(cut).join('\n')) t.strictSame(saidOf(cut), whole, `case ${number}`)
  }
  t.equal(read, CASES)
})
