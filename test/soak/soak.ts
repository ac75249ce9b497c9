/**
 * A soak: a real lab under mixed traffic, certificates that rotate all the time, and something done to the mesh every
 * few seconds. At the end everything must be accounted for: bytes, failures, descriptors, memory.
 */
import type { ChildProcess } from 'node:child_process'
import { cpSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { podNamed, serialOf, until } from '../../lab/demo/facts.ts'
import { startLab, type Lab } from '../../lab/lab.ts'
import { programArgv } from '../../lab/supervisor/context.ts'
import { CulvertError, errorText } from '../../lib/errors.ts'
import { Scope } from '../fuzz/scope.ts'
import { carryOut, type Deed } from './deeds.ts'
import { growthProblems, isExplained, leakProblems, trendsOf, type Trend } from './judge.ts'
import { logProblems } from './logs.ts'
import { atRest, sample, type AtRest, type Sample } from './samples.ts'
import { makeSchedule } from './schedule.ts'
import type { TrafficFailure, TrafficKind, TrafficResult } from './traffic.ts'

export interface SoakOptions {
  readonly seconds: number
  readonly seed: number
  /** Between two deeds, on average, s. */
  readonly everySeconds?: number
  /** Of certificates, s: they are renewed at half of it. */
  readonly ttlSeconds?: number
  /** How much longer traffic pauses between two connections than at full load. @default 1 */
  readonly pauses?: number
  readonly signal: AbortSignal
  readonly progress?: (now: SoakProgress) => void
}

export interface SoakProgress {
  readonly elapsedMs: number
  /** What is being done. */
  readonly doing: string
  /** The latest of every part. */
  readonly samples: readonly Sample[]
}

export interface SoakReport {
  readonly seed: number
  /** Unix ms. */
  readonly startedAtMs: number
  readonly seconds: number
  readonly deeds: readonly Deed[]
  readonly done: Readonly<Record<TrafficKind, number>>
  readonly bytes: number
  /** Failures that a deed accounts for. */
  readonly explained: number
  readonly rotations: number
  readonly start: AtRest
  readonly end: AtRest
  readonly samples: readonly Sample[]
  readonly trends: readonly Trend[]
  /** Everything that is not in order; empty when all is well. */
  readonly wrong: readonly string[]
}

const GRACE_SECONDS = 3
/** An agent keeps the last second of its grace for itself. */
const DRAIN_MS = (GRACE_SECONDS - 1) * 1000
/** Long enough for every kind of traffic to have come by. */
const PRIME_MS = 1000
const SAMPLE_MS = 1000
const SETTLE_MS = 20_000
/** Traffic must end by itself when it is told to: the slowest connection takes seconds. */
const TRAFFIC_END_MS = 45_000
const MOST_TOLD = 20

export async function soak(options: SoakOptions): Promise<SoakReport> {
  const scope = new Scope()
  try {
    return await new Soak(options).run(scope)
  } finally {
    await scope.close()
  }
}

class Soak {
  readonly #options: SoakOptions
  readonly #wrong: string[] = []
  readonly #deeds: Deed[] = []
  readonly #samples: Sample[] = []
  #doing = 'starting'

  constructor(options: SoakOptions) {
    this.#options = options
  }

  async run(scope: Scope): Promise<SoakReport> {
    const { seconds, seed, signal, everySeconds = 8, ttlSeconds = 30 } = this.#options
    const lab = await startLab({
      name: `soak${process.pid}`,
      certTtl: `${ttlSeconds}s`,
      graceSeconds: GRACE_SECONDS,
      signal,
    })
    scope.teardown(() => lab.down())
    const pods = [await podNamed(lab, 'client'), await podNamed(lab, 'server')]
    const serials = new Set<string>()
    // What is made once is made now, and what is at rest then is compared with.
    await this.#traffic(lab, seed, () => sleep(PRIME_MS, undefined, { signal }).catch(() => undefined))
    const start = await settled(lab)
    const startedAtMs = Date.now()
    const watching = new AbortController()
    const watch = this.#watch(lab, startedAtMs, watching.signal, async () => {
      for (const pod of pods) {
        const serial = await serialOf(lab, pod).catch(() => undefined) // its agent may just have been killed
        if (serial !== undefined) serials.add(serial)
      }
    })
    const results = await this.#traffic(lab, seed, async () => {
      const durationMs = seconds * 1000
      for (const planned of makeSchedule(seed, durationMs, everySeconds * 1000)) {
        await sleepUntil(startedAtMs + planned.atMs, signal)
        if (signal.aborted) return
        this.#doing = `${planned.kind} ${planned.node}`
        try {
          this.#deeds.push(await carryOut(lab, planned))
        } catch (err) {
          this.#wrong.push(
            `${planned.kind} ${planned.node} after ${Math.round(planned.atMs / 1000)} s: ${errorText(err)}`,
          )
        }
        this.#doing = 'traffic'
      }
      await sleepUntil(startedAtMs + durationMs, signal)
    })
    this.#doing = 'settling'
    const end = await settled(lab, start)
    watching.abort()
    await watch
    const failures = results.flatMap(result => result.failures)
    const unexplained = failures.filter(failure => !isExplained(failure, this.#deeds, DRAIN_MS))
    const trends = trendsOf(this.#samples)
    this.#wrong.push(
      ...failureProblems(unexplained, startedAtMs),
      ...(signal.aborted ? [] : results.flatMap(silentKinds)),
      ...leakProblems(start, end),
      ...growthProblems(trends),
      ...logProblems(lab),
    )
    const elapsed = (Date.now() - startedAtMs) / 1000
    // Each pod's first, and at least every other one that was due: renewals come at half life, with jitter.
    const due = Math.floor(elapsed / ttlSeconds)
    if (serials.size < 2 + due)
      this.#wrong.push(`${serials.size} certificates of two pods seen in ${Math.round(elapsed)} s`)
    if (this.#wrong.length > 0) this.#wrong.push(`the logs are kept in ${keptLogs(lab)}`)
    return {
      seed,
      startedAtMs,
      seconds: elapsed,
      deeds: this.#deeds,
      done: sumOf(results),
      bytes: results.reduce((sum, { bytes }) => sum + bytes, 0),
      explained: failures.length - unexplained.length,
      rotations: serials.size - 2,
      start,
      end,
      samples: this.#samples,
      trends,
      wrong: this.#wrong,
    }
  }

  /** Traffic in both directions between the nodes, and within one, for as long as something takes. */
  async #traffic(lab: Lab, seed: number, something: () => Promise<void>): Promise<TrafficResult[]> {
    const scope = new Scope()
    try {
      const [server, server2] = [await podNamed(lab, 'server'), await podNamed(lab, 'server-2')]
      const vip = (await lab.status()).services.find(({ name }) => name === 'echo')?.clusterIPs[0] ?? ''
      const pauses = String(this.#options.pauses ?? 1)
      const streams = [
        await Traffic.start(lab, scope, 'client', [`${seed}/1`, pauses, server.ip, vip]),
        await Traffic.start(lab, scope, 'server', [`${seed}/2`, pauses, server2.ip]),
        await Traffic.start(lab, scope, 'client', [`${seed}/3`, pauses, server2.ip6]),
      ]
      await something()
      return await Promise.all(streams.map(stream => stream.stop()))
    } finally {
      await scope.close()
    }
  }

  async #watch(lab: Lab, startedAtMs: number, signal: AbortSignal, also: () => Promise<void>): Promise<void> {
    while (!signal.aborted) {
      try {
        const now = await sample(lab, startedAtMs)
        this.#samples.push(...now)
        this.#options.progress?.({ elapsedMs: Date.now() - startedAtMs, doing: this.#doing, samples: now })
        await also()
      } catch (err) {
        this.#wrong.push(`the lab could not be looked at: ${errorText(err)}`)
        return
      }
      await sleep(SAMPLE_MS, undefined, { signal }).catch(() => undefined)
    }
  }
}

/** A traffic program in a pod. */
class Traffic {
  readonly #child: ChildProcess
  readonly #result: Promise<TrafficResult>

  private constructor(child: ChildProcess, pod: string, started: () => void) {
    this.#child = child
    child.on('error', () => undefined) // 'close' comes too
    let last = ''
    createInterface({ input: child.stdout! }).on('line', line => {
      last = line
      if (line === 'started') started()
    })
    this.#result = new Promise((resolve, reject) =>
      child.once('close', code => {
        if (last.startsWith('{')) resolve(JSON.parse(last) as TrafficResult)
        else reject(new CulvertError('LAB', `the traffic of ${pod} ended without a result (${code})`))
      }),
    )
    this.#result.catch(() => undefined) // whoever stops it hears of it
  }

  static async start(lab: Lab, scope: Scope, pod: string, args: readonly string[]): Promise<Traffic> {
    const child = await lab.spawn(pod, [...programArgv('test/soak/traffic.ts'), ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
      detached: true, // Ctrl-C is for whoever started all this, who then ends it in order
    })
    const started = Promise.withResolvers<void>()
    const traffic = new Traffic(child, pod, started.resolve)
    scope.teardown(() => child.kill('SIGKILL'))
    await Promise.race([started.promise, traffic.#result])
    return traffic
  }

  async stop(): Promise<TrafficResult> {
    this.#child.kill('SIGTERM')
    const late = new AbortController()
    try {
      return await Promise.race([
        this.#result,
        sleep(TRAFFIC_END_MS, undefined, { signal: late.signal }).then(() => {
          throw new CulvertError('TIMEOUT', `traffic goes on ${TRAFFIC_END_MS} ms after it was told to end`)
        }),
      ])
    } finally {
      late.abort()
    }
  }
}

/** What is there once no connection is open, and, if that comes about, no more than before. */
async function settled(lab: Lab, before?: AtRest): Promise<AtRest> {
  let last = await atRest(lab)
  const isSo = () =>
    Object.values(last.parts).every(({ connections }) => connections === 0) &&
    (!before || leakProblems(before, last).length === 0)
  await until('rest', SETTLE_MS, async () => {
    last = await atRest(lab)
    return isSo() || undefined
  }).catch(() => undefined) // it is judged as it is
  return last
}

function failureProblems(failures: readonly TrafficFailure[], startedAtMs: number): string[] {
  const told = failures.slice(0, MOST_TOLD).map(({ kind, startedAtMs: began, failedAtMs, error }) => {
    const after = ((began - startedAtMs) / 1000).toFixed(2)
    return `${kind} begun after ${after} s failed ${failedAtMs - began} ms later: ${error}`
  })
  const more = failures.length - told.length
  return more > 0 ? [...told, `and ${more} more`] : told
}

/** Kinds of connection that never came to a good end. */
function silentKinds({ done }: TrafficResult): string[] {
  return Object.entries(done).flatMap(([kind, count]) =>
    count === 0 ? `no ${kind} has ended as it should` : [],
  )
}

function sumOf(results: readonly TrafficResult[]): Record<TrafficKind, number> {
  const sum: Partial<Record<TrafficKind, number>> = {}
  for (const { done } of results)
    for (const [kind, count] of Object.entries(done) as [TrafficKind, number][])
      sum[kind] = (sum[kind] ?? 0) + count
  return sum as Record<TrafficKind, number>
}

/** Copies the logs to where they outlive the lab. */
function keptLogs(lab: Lab): string {
  const dir = join(tmpdir(), `culvert-soak-${process.pid}`)
  cpSync(lab.paths.logs, dir, { recursive: true })
  return dir
}

async function sleepUntil(atMs: number, signal: AbortSignal): Promise<void> {
  const ms = atMs - Date.now()
  if (ms > 0) await sleep(ms, undefined, { signal }).catch(() => undefined)
}
