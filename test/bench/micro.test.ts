import t from 'tap'
import { podWorkload } from '../../ca-server/discovery/workloads.ts'
import { clusterOf, podIp, serviceIp } from '../../bench/micro/cluster.ts'
import { learn, learningResults } from '../../bench/micro/learning.ts'
import { runMicro } from '../../bench/micro/micro.ts'
import { QUICK, ratesOf } from '../../bench/micro/sampler.ts'
import { World } from '../../ca-server/world/world.ts'
import { keyOf } from '../../lib/kube/manifest.ts'

await t.test('a rate is how often the work was done, not how often it was called', async t => {
  let done = 0
  let calls = 0
  const spin = (times: number) => {
    calls++
    done += times
    for (const endMs = performance.now() + times / 100; performance.now() < endMs;);
  }
  const rates = await ratesOf(spin, { warmUpMs: 5, sampleMs: 10, samples: 3 })
  t.equal(rates.length, 3)
  t.ok(done > calls * 50, `${done} done in ${calls} calls`)
  // A hundred in a millisecond; slower when somebody else has the processor.
  t.ok(Math.max(...rates) <= 100_500, rates.join())
})

await t.test('a run that was held up does not decide how often the work is done in a sample', async t => {
  const counts: number[] = []
  const spin = (times: number) => {
    counts.push(times)
    const heldMs = counts.length === 1 ? 30 : 0
    for (const endMs = performance.now() + heldMs + times / 100; performance.now() < endMs;);
  }
  await ratesOf(spin, { warmUpMs: 5, sampleMs: 10, samples: 3 })
  t.ok(counts.at(-1)! > 50, counts.join())
})

await t.test('work that fails fails the measurement', async t => {
  const fails = async () => {
    throw new Error('it broke')
  }
  await t.rejects(ratesOf(fails, QUICK), { message: 'it broke' })
})

await t.test('what was asked for is measured, and nothing else', async t => {
  const said: string[] = []
  const results = await runMicro(what => said.push(what), {
    quick: true,
    only: ['frame-', 'hpack-', 'policy-10'],
  })
  t.strictSame(
    results.map(({ id }) => id),
    [
      ...[64, 16_384, 262_144].flatMap(size => [`frame-encode-${size}`, `frame-decode-${size}`]),
      ...['request', 'answer'].flatMap(what => [`hpack-encode-${what}`, `hpack-decode-${what}`]),
      'policy-10',
      'policy-100',
    ],
  )
  t.equal(said.length, results.length)
  for (const { id, opsPerSecond, samples } of results) {
    t.equal(samples.length, QUICK.samples, id)
    t.ok(samples.includes(opsPerSecond) && samples.every(sample => sample > 100), id)
  }
})

await t.test('both engines issue certificates', async t => {
  const results = await runMicro(() => undefined, { quick: true, only: ['issue-'] })
  t.strictSame(
    results.map(({ id }) => id),
    ['issue-peculiar', 'issue-node'],
  )
  t.ok(results.every(({ opsPerSecond }) => opsPerSecond > 1))
})

await t.test('a mesh learns of a whole cluster, and says what that took', async t => {
  const [learnt] = await learn(250, { times: 1, isQuick: true })
  t.match(learnt, { pods: 250 })
  t.ok(learnt!.seconds > 0 && learnt!.seconds < 60)
  t.ok(learnt!.keptBytes > 250 * 100 && learnt!.keptBytes < 250 * 100_000, `${learnt!.keptBytes} bytes`)
  t.ok(learnt!.podRates.length > 0 && learnt!.serviceRates.length > 0)
  t.strictSame(
    learningResults(250, [learnt!]).map(({ id, unit }) => [id, unit]),
    [
      ['ingest-250', 'workloads'],
      ['resolve-pod-250', undefined],
      ['resolve-service-250', undefined],
    ],
  )
})

await t.test('it can be given up', async t => {
  await t.rejects(
    runMicro(() => undefined, { quick: true, signal: AbortSignal.abort(new Error('enough')) }),
    {
      message: 'enough',
    },
  )
})

await t.test('a cluster has each object and address once, and its pods can be told of', async t => {
  const objects = clusterOf(1234)
  t.equal(new Set(objects.map(keyOf)).size, objects.length)
  const addresses = Array.from({ length: 100_000 }, (_, at) => [podIp(at), serviceIp(at)]).flat()
  t.equal(new Set(addresses).size, 200_000)
  const world = new World()
  world.replaceAll(objects)
  const settings = {
    clusterId: 'Kubernetes',
    clusterDomain: 'cluster.local',
    trustDomain: 'cluster.local',
    tunnelWithoutReport: true,
  }
  const pods = objects.filter(object => object.kind === 'Pod')
  t.equal(pods.length, 1234)
  const groups = pods.map(pod => podWorkload(world, pod, undefined, settings)?.groups)
  t.ok(groups.every(group => group?.length === 2))
})
