import { spawn } from 'node:child_process'
import { once } from 'node:events'
import * as fc from 'fast-check'
import t from 'tap'
import { parseIperf } from '../../bench/measure/bulk.ts'
import { allMetrics, MEASUREMENTS } from '../../bench/measure/all.ts'
import { parseWrk } from '../../bench/measure/http.ts'
import {
  commandLine,
  cpuMs,
  processTree,
  proportionalBytes,
  residentBytes,
} from '../../bench/measure/processes.ts'
import { DEFAULT_TIMING } from '../../bench/options.ts'
import { TARGETS } from '../../bench/targets.ts'
import { CulvertError } from '../../lib/errors.ts'
import { becomes } from '../helpers/becomes.ts'

const WRK = `Running 2s test @ http://10.98.2.2:8080/
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     6.52ms    4.23ms  83.26ms   93.30%
  20216 requests in 2.01s, 3.30MB read
Requests/sec:  10052.84
Transfer/sec:      1.64MB
`

await t.test('the rate of wrk counts only when every request was answered well', async t => {
  t.equal(parseWrk(WRK), 10052.84)
  const failed = (line: string) => WRK.replace('Requests/sec', `${line}\nRequests/sec`)
  t.throws(() => parseWrk(failed('  Socket errors: connect 0, read 3, write 0, timeout 0')), {
    code: 'TOOL',
    message: /read 3/,
  })
  t.throws(() => parseWrk(failed('  Non-2xx or 3xx responses: 7')), { code: 'TOOL', message: /7/ })
  t.throws(() => parseWrk('unable to connect'), { code: 'TOOL' })
  t.throws(() => parseWrk('Requests/sec:      0.00'), { code: 'TOOL' })
})

await t.test('whatever wrk says is a rate or an error with a name', async () => {
  fc.assert(
    fc.property(fc.string(), text => {
      try {
        return parseWrk(`${WRK.slice(0, text.length)}${text}`) > 0
      } catch (err) {
        return err instanceof CulvertError && err.code === 'TOOL'
      }
    }),
  )
})

await t.test('a failed iperf3 says why', async t => {
  const text = JSON.stringify({ intervals: [], end: {}, error: 'unable to connect to server' })
  t.throws(() => parseIperf(text), { code: 'TOOL', message: /unable to connect to server/ })
})

await t.test(
  'a process is measured with what it has started, and what is gone counts for nothing',
  async t => {
    const script = 'sleep 60 & echo up; wait'
    const child = spawn('sh', ['-c', script, 'a (strange) name'], { stdio: ['ignore', 'pipe', 'ignore'] })
    t.teardown(() => child.kill('SIGKILL'))
    await once(child.stdout, 'data')
    const tree = processTree(child.pid!)
    t.equal(tree.length, 2, 'the shell and its sleep')
    t.teardown(() => {
      for (const pid of tree.slice(1)) process.kill(pid, 'SIGKILL')
    })
    await becomes(() => commandLine(tree[1]!) !== commandLine(child.pid!)) // it is a second shell at first
    t.equal(commandLine(tree[1]!), 'sleep 60')
    t.ok(residentBytes(tree) > residentBytes([child.pid!]))
    t.ok(proportionalBytes(tree) < residentBytes(tree), 'two programs share the C library')
    t.ok(cpuMs([process.pid]) > 10, 'this test has used some time')
    const gone = 2 ** 22 + 1
    t.strictSame(
      [cpuMs([gone]), residentBytes([gone]), processTree(gone), commandLine(gone)],
      [0, 0, [gone], ''],
    )
  },
)

await t.test('metrics are named once, and every target is about one of them', async t => {
  const ids = allMetrics(DEFAULT_TIMING).map(({ id }) => id)
  t.equal(new Set(ids).size, ids.length)
  for (const { metric, of } of TARGETS) {
    t.ok(ids.includes(metric), metric)
    if (typeof of === 'object') t.ok(ids.includes(of.metric), of.metric)
  }
  t.ok(MEASUREMENTS[0]?.isAtRest, 'memory at rest comes before any load')
})
