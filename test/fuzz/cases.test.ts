import { setImmediate as nextTurn } from 'node:timers/promises'
import * as fc from 'fast-check'
import t from 'tap'
import { FRAME, PREFACE } from '../../agent/hbone/protocol.ts'
import { Answers } from './answers.ts'
import { recordCaptures } from './captures.ts'
import { caseFromJson, caseToJson, isToClient, makeCase } from './cases.ts'
import { parseArgs } from './options.ts'
import { Random } from './random.ts'
import { parseWire, wireBytes } from './wire.ts'

const at = (port: number) => `10.77.0.2:${port}`
const TO = { echo: at(7000), slow: at(7001), sink: at(7002), reset: at(7003) }
const captures = await recordCaptures(TO)
const sources = { captures, hellos: [Buffer.alloc(300, 0x16)], authorities: Object.values(TO) }

await t.test('a session that is recorded in another second gives the same bytes', async t => {
  const second = Math.floor(Date.now() / 1000)
  while (Math.floor(Date.now() / 1000) === second) await nextTurn()
  const again = await recordCaptures(TO)
  for (const [index, { name, client, server }] of captures.entries()) {
    t.ok(again[index]!.client.equals(client), `${name}: the client's`)
    t.ok(again[index]!.server.equals(server), `${name}: the server's`)
  }
})

await t.test('the sessions have every type of frame that honest peers send', async t => {
  const types = new Set(
    captures.flatMap(({ client, server }) =>
      [client, server].flatMap(side => parseWire(side).frames.map(({ type }) => type)),
    ),
  )
  const { data, headers, rstStream, settings, ping, goaway, windowUpdate, continuation } = FRAME
  for (const type of [data, headers, rstStream, settings, ping, goaway, windowUpdate, continuation])
    t.ok(types.has(type), `type ${type}`)
})

await t.test('the same seed and number make the same case, others another', async t => {
  const bytesOf = (seed: number, number: number) =>
    JSON.stringify(caseToJson(makeCase(seed, number, sources)))
  const seen = new Set<string>()
  for (let number = 0; number < 300; number++) {
    t.ok(bytesOf(7, number) === bytesOf(7, number), `case ${number}`)
    seen.add(bytesOf(7, number)).add(bytesOf(8, number))
  }
  t.ok(seen.size > 590, `${seen.size} of 600 differ`)
})

await t.test('a case is the same after it was in a file', async t => {
  for (let number = 0; number < 100; number++) {
    const one = makeCase(3, number, sources)
    t.strictSame(caseFromJson(JSON.parse(JSON.stringify(caseToJson(one)))), one)
    t.equal(one.kind === 'to-client', isToClient(number))
  }
  for (const json of [{}, { seed: 1 }, { ...caseToJson(makeCase(1, 1, sources)), pieces: [1] }])
    t.throws(() => caseFromJson(json), TypeError)
})

await t.test('bytes that are taken apart into frames are the same when put together', async () => {
  const bytes = fc.uint8Array({ maxLength: 400 }).map(array => Buffer.from(array))
  const wire = fc.oneof(
    bytes,
    bytes.map(rest => Buffer.concat([PREFACE, rest])),
    fc.constantFrom(...captures.map(({ client }) => client)),
  )
  fc.assert(fc.property(wire, wire => wireBytes(parseWire(wire)).equals(wire)))
})

await t.test('the GOAWAY among answers is found, however they are cut', async t => {
  const { server } = captures.find(({ name }) => name === 'leaving')!
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }), cuts => {
      const answers = new Answers()
      for (let from = 0, cut = 0; from < server.length; cut++) {
        const size = cuts[cut % cuts.length]!
        answers.take(server.subarray(from, from + size))
        from += size
      }
      return answers.goaway?.name === 'NO_ERROR' && answers.problem === undefined && answers.answered === 1
    }),
  )
  const answers = new Answers()
  answers.take(Buffer.from('000000ff0000000000', 'hex'))
  t.equal(answers.problem, 'a frame of type 255')
})

await t.test('numbers that look random are even', async t => {
  const random = new Random(1)
  const counts = Array.from({ length: 10 }, () => 0)
  for (let round = 0; round < 20_000; round++) counts[random.int(10)]!++
  for (const count of counts) t.ok(count > 1800 && count < 2200, String(count))
})

await t.test('arguments are understood, and what is wrong is named', async t => {
  t.strictSame(parseArgs(['--seconds', '5', '--seed=3', '--json']), {
    seconds: 5,
    cases: undefined,
    seed: 3,
    isJson: true,
    corpus: undefined,
    replay: undefined,
  })
  t.equal(parseArgs(['--help']), undefined)
  for (const args of [['--secnds', '5'], ['--seconds'], ['--seconds', '-1'], ['--seed', 'x']])
    t.throws(() => parseArgs(args), { code: 'INPUT' })
})
