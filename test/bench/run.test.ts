/** The bench end to end, as short as it can be: its figures are not looked at closer than that they can be. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { ARM_NAMES, type BenchRun } from '../../bench/model.ts'
import { missingTools } from '../../cli/setup/tools.ts'
import { labPaths } from '../../lab/names.ts'
import { listNetns } from '../../lab/net/namespaces.ts'
import { run } from '../../lab/run.ts'

const MAIN = fileURLToPath(new URL('../../bench/main.ts', import.meta.url))
const NODE = [process.execPath, '--disable-warning=ExperimentalWarning', MAIN]
const skip = process.getuid?.() !== 0 && 'needs root'
const METRICS =
  'start,rss-idle,pss-idle,bulk-1,cpu-gib,rt-64-p50,rt-64-p99,cpu-rt,open-p99,conn-32,rss-1k'.split(',')
/** What an arm without agents has. */
const PLAIN = ['bulk-1', 'rt-64-p50', 'rt-64-p99', 'open-p99', 'conn-32']

await t.test(
  'one short round gives one sample for each arm and metric, and leaves nothing',
  { skip },
  async t => {
    const dir = t.testdir({})
    const [json, html] = [join(dir, 'run.json'), join(dir, 'run.html')]
    const files = ['--json', json, '--html', html]
    const words = [
      '--quick',
      '--no-install',
      '--arms',
      'none,culvert',
      '--metrics',
      METRICS.join(','),
      ...files,
    ]
    const child = spawn(NODE[0]!, [...NODE.slice(1), ...words], { stdio: ['ignore', 'pipe', 'pipe'] })
    let said = ''
    child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
    child.stdout.resume()
    const [code] = (await once(child, 'close')) as [number | null]
    t.equal(code, 0, said)

    const found = JSON.parse(readFileSync(json, 'utf8')) as BenchRun
    t.strictSame(found.gaps, [], 'nothing failed')
    const without = new Set(missingTools(['iperf3']).length > 0 ? ['bulk-1', 'cpu-gib'] : [])
    for (const [arm, metrics] of [
      ['none', PLAIN],
      ['culvert', METRICS],
    ] as const)
      t.strictSame(
        found.samples
          .filter(sample => sample.arm === arm)
          .map(({ metric }) => metric)
          .sort(),
        metrics.filter(metric => !without.has(metric)).sort(),
        arm,
      )
    for (const { metric, missing } of found.metrics.map(({ id, missing }) => ({ metric: id, missing })))
      t.equal(missing !== undefined, without.has(metric), `${metric} is missing only when its program is`)
    t.ok(found.samples.every(({ value, round }) => value > 0 && round === 1))
    const value = (metric: string) =>
      found.samples.find(sample => sample.arm === 'culvert' && sample.metric === metric)!.value
    t.ok(value('rt-64-p50') > 5 && value('rt-64-p50') <= value('rt-64-p99'), 'a round trip, in µs')
    t.ok(value('rss-idle') > 30 && value('rss-idle') < 1000, 'a process of Node, in MB')
    t.ok(value('pss-idle') < 2.1 * value('rss-idle'), 'two of them share something')
    t.ok(value('rss-1k') >= 0.5 * value('rss-idle'))

    const culvert = found.arms.find(({ name }) => name === 'culvert')!
    t.equal(culvert.commands.length, 2, 'an agent for each side')
    t.match(culvert.config, /NODE_NAME=node-a[^]*THREADS=1/)
    t.notMatch(
      JSON.stringify(found),
      fileURLToPath(new URL('../..', import.meta.url)),
      'names no place of this machine',
    )
    t.match(readFileSync(html, 'utf8'), /<svg/)

    const lab = `bench_${child.pid}`
    t.strictSame(listNetns(lab), [], 'no namespace is left')
    t.notOk(existsSync(labPaths(lab).run), 'no file is left')
  },
)

await t.test('interrupted, it leaves nothing and says so', { skip }, async t => {
  const words = '--no-install --arms culvert --metrics start,rt-64-p50 --seconds 600'.split(' ')
  const child = spawn(NODE[0]!, [...NODE.slice(1), ...words], { stdio: ['ignore', 'ignore', 'pipe'] })
  const lab = `bench_${child.pid}`
  let said = ''
  const hasStarted = Promise.withResolvers<void>()
  child.stderr.on('data', (chunk: Buffer) => {
    said += chunk.toString()
    // From then on there is much that could be left: agents, holders, clients, rules.
    if (/ start [\d,.]+ ms/.test(said)) hasStarted.resolve()
  })
  const closed = once(child, 'close').then(([code]) => code as number | null)
  await Promise.race([hasStarted.promise, closed])
  t.not(listNetns(lab).length, 0, 'it was there')
  child.kill('SIGINT')
  t.equal(await closed, 130, said)
  t.match(said, /interrupted; nothing is left behind/)
  t.strictSame(listNetns(lab), [])
  t.notOk(existsSync(labPaths(lab).run))
})

await t.test('what cannot be meant is refused with what can', async t => {
  const refused = async (words: readonly string[], ...why: RegExp[]) => {
    const { code, stderr } = await run([...NODE, ...words])
    t.equal(code, 2, words.join(' '))
    for (const each of why) t.match(stderr, each)
  }
  await Promise.all([
    refused(['--arms', 'none,istio'], /no arm 'istio'; there are none, nginx, haproxy, ztunnel, culvert/),
    refused(['--metrics', 'bulk-1,bulk'], /no metric 'bulk'/, /hint: there are bulk-1, /),
    refused(['--rounds', '0'], /'0' is not a number from 1 to 1000/),
    refused(['--seconds', 'x'], /'x' is not between/),
    refused(['report', '/nonexistent.json'], /\/nonexistent.json cannot be read/),
    refused(['measure'], /hint: npm run bench -- --help/),
  ])
})

await t.test('the help names every arm and metric', async t => {
  const { code, stdout } = await run([...NODE, '--help'])
  t.equal(code, 0)
  for (const word of [...ARM_NAMES, ...METRICS]) t.match(stdout.toString(), word)
})
