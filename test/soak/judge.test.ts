import * as fc from 'fast-check'
import t from 'tap'
import type { Deed } from './deeds.ts'
import { growthProblems, isExplained, leakProblems, straightLine, trendsOf } from './judge.ts'
import { parseArgs } from './options.ts'
import { sparkline } from './plot.ts'
import type { AtRest } from './samples.ts'
import { makeSchedule } from './schedule.ts'

const MIB = 1024 * 1024
const failure = (startedAtMs: number, failedAtMs: number) =>
  ({ kind: 'chat', error: 'ECONNRESET', startedAtMs, failedAtMs }) as const
const deed = (kind: Deed['kind'], struckAtMs: number, endedAtMs: number): Deed => ({
  kind,
  node: 'node-a',
  beganAtMs: struckAtMs,
  struckAtMs,
  endedAtMs,
})

await t.test('a kill accounts for what was open, and for nothing that began later', async t => {
  const kill = [deed('kill-agent', 10_000, 12_000)]
  t.ok(isExplained(failure(9000, 10_100), kill, 2000))
  t.notOk(isExplained(failure(10_001, 10_100), kill, 2000), 'it waits for the next agent')
  t.notOk(isExplained(failure(9000, 20_000), kill, 2000), 'it was not cut by that')
  t.notOk(isExplained(failure(1000, 2000), kill, 2000))
})

await t.test('a replacement accounts for what lived as long as the grace', async t => {
  const replaced = [deed('replace-agent', 10_000, 16_000)]
  t.ok(isExplained(failure(9000, 15_000), replaced, 2000))
  t.notOk(isExplained(failure(14_500, 15_000), replaced, 2000))
  t.notOk(
    isExplained(failure(9000, 15_000), [deed('stop-ca', 10_000, 16_000)], 2000),
    'a ca-server carries nobody',
  )
  t.notOk(isExplained(failure(9000, 15_000), [deed('churn', 10_000, 16_000)], 2000))
})

await t.test('a straight line is found again', async () => {
  const small = fc.integer({ min: -1000, max: 1000 })
  fc.assert(
    fc.property(small, small, fc.uniqueArray(small, { minLength: 2 }), (slope, offset, xs) => {
      const line = straightLine(xs.map(x => [x, slope * x + offset]))
      return Math.abs(line(500) - (slope * 500 + offset)) < 1e-3
    }),
  )
})

await t.test('memory that grows is told, memory that swings is not', async t => {
  const samples = (rssAt: (second: number) => number) =>
    Array.from({ length: 240 }, (_, second) => ({
      part: 'agent-node-a',
      pid: 7,
      atMs: second * 1000,
      rssBytes: rssAt(second) * MIB,
      descriptors: 1,
      threads: 1,
    }))
  t.strictSame(growthProblems(trendsOf(samples(second => 100 + 20 * Math.sin(second)))), [])
  t.match(growthProblems(trendsOf(samples(second => 100 + second / 4))), [
    /agent-node-a \(7\) grew by 41\.\d MiB in 167 s/,
  ])
  t.strictSame(trendsOf(samples(() => 1).slice(0, 110)), [], 'too short to tell')
})

await t.test('what is there more than at the start is named', async t => {
  const rest = (descriptors: number, connections = 0): AtRest => ({
    parts: {
      'agent-node-a': { pid: 1, descriptors, threads: 8, connections, kinds: { socket: descriptors } },
    },
    processes: 10,
    namespaces: 8,
  })
  t.strictSame(leakProblems(rest(50), rest(60)), [])
  t.match(leakProblems(rest(50), rest(100)), [/descriptors of agent-node-a: 100 at the end, 50 at the start/])
  t.match(leakProblems(rest(50), rest(50, 3)), [/open connections of agent-node-a: 3/])
  t.match(leakProblems(rest(50), { ...rest(50), processes: 11 }), [/processes/])
  t.match(leakProblems(rest(50), { ...rest(50), parts: {} }), [/does not run/])
})

await t.test('a schedule is the seed’s, has one of everything, and is gentle in its second part', async t => {
  const schedule = makeSchedule(5, 300_000, 8000)
  t.strictSame(makeSchedule(5, 300_000, 8000), schedule)
  t.notSame(makeSchedule(6, 300_000, 8000), schedule)
  t.strictSame(
    schedule.slice(0, 4).map(({ kind }) => kind),
    ['replace-agent', 'kill-agent', 'churn', 'stop-ca'],
  )
  t.strictSame(
    schedule.filter(({ atMs, kind }) => atMs > 120_000 && kind.endsWith('-agent')),
    [],
  )
  t.ok(schedule.every(({ atMs }, index) => index === 0 || atMs > schedule[index - 1]!.atMs))
})

await t.test('a sparkline has the shape of the numbers', async t => {
  t.equal(sparkline([0, 1, 2, 3, 4, 5, 6, 7]), '▁▂▃▄▅▆▇█')
  t.equal(sparkline([5, 5, 5]), '▁▁▁')
  t.equal(sparkline([]), '')
  t.equal(sparkline(Array.from({ length: 1000 }, (_, at) => at)).length, 60)
})

await t.test('arguments are understood, and what is wrong is named', async t => {
  t.match(parseArgs(['--minutes', '5', '--seed', '3']), {
    minutes: 5,
    seed: 3,
    everySeconds: 8,
    isJson: false,
  })
  t.equal(parseArgs(['--help']), undefined)
  for (const args of [['--hours', '5'], ['--minutes', '0'], ['--minutes', 'x'], ['--html']])
    t.throws(() => parseArgs(args), { code: 'INPUT' })
})
