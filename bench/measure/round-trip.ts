/** How long an answer takes: closed loop on one connection, alone, and beside a bulk stream of the same two pods. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Latencies } from '../clients/program.ts'
import type { MetricInfo } from '../model.ts'
import { BenchProcess } from '../process.ts'
import { APP_PORT } from '../world.ts'
import { iperfArgv, parseIperf } from './bulk.ts'
import { clientArgv, shown, type Measurement, type Situation, type Timing } from './measurement.ts'

type Result = Latencies & { readonly total: number }
type Quantile = 'p50' | 'p90' | 'p99' | 'p999'

const SHOWN: Readonly<Record<Quantile, string>> = { p50: 'p50', p90: 'p90', p99: 'p99', p999: 'p99.9' }
const QUANTILES: readonly Quantile[] = ['p50', 'p90', 'p99', 'p999']

/** Until the bulk stream is at full speed. */
const BULK_LEAD_MS = 700

export function roundTrip(id: 'rt-64' | 'rt-1k', bytes: number): Measurement {
  const name = bytes === 1024 ? '1 KiB' : `${bytes} B`
  return {
    id,
    tools: [],
    metrics: timing => {
      const command = shown(argv('SERVER', bytes, timing))
      const latencies = latencyMetrics(id, QUANTILES, `round trip ${name}`, {
        command,
        about: `One connection, TCP_NODELAY: from writing ${name} until the same ${name} are back; then the next.`,
      })
      const cpu: MetricInfo = {
        id: 'cpu-rt',
        title: 'agents’ CPU, 64 B round trip',
        unit: 'µs',
        better: 'lower',
        command: `${command}; utime + stime of /proc/PID/stat before and after`,
        about: 'Processor time of both agents together for each round trip of that run.',
      }
      return id === 'rt-64' ? [...latencies, cpu] : latencies
    },
    run: async at => {
      const cpuBefore = at.agentCpuMs()
      const result = await roundTrips(at, bytes)
      const cpuMs = at.agentCpuMs() - cpuBefore
      const latencies = Object.fromEntries(QUANTILES.map(q => [`${id}-${q}`, result[q]]))
      return id === 'rt-64' && at.hasAgents
        ? { ...latencies, 'cpu-rt': (cpuMs * 1000) / result.total }
        : latencies
    },
  }
}

/** Small beside bulk. The ratio is to the run alone, which must have been before, in the same round of the same arm. */
export function besideBulk(): Measurement {
  return {
    id: 'beside-bulk',
    tools: ['iperf3'],
    metrics: timing =>
      latencyMetrics('beside-bulk', ['p50', 'p99'], 'round trip 64 B beside bulk', {
        command: `${iperfArgv('SERVER', 1, bulkTiming(timing)).join(' ')} & ${shown(argv('SERVER', 64, timing))}`,
        about: 'The 64 B round trip while one bulk stream runs between the same two pods.',
      }),
    run: async at => {
      const bulk = new BenchProcess({
        name: 'iperf3',
        argv: at.world.podArgv('client', iperfArgv(at.world.server.ip, 1, bulkTiming(at.timing))),
      })
      try {
        await sleep(BULK_LEAD_MS, undefined, { signal: at.signal })
        const { p50, p99 } = await roundTrips(at, 64)
        // The stream has to have lasted for as long as it was measured beside, and to have gone through.
        bulk.check()
        parseIperf(await bulk.rest(at.signal))
        return { 'beside-bulk-p50': p50, 'beside-bulk-p99': p99 }
      } finally {
        await bulk.stop()
      }
    },
  }
}

export function latencyMetrics(
  id: string,
  quantiles: readonly Quantile[],
  title: string,
  rest: Pick<MetricInfo, 'command' | 'about'>,
): MetricInfo[] {
  return quantiles.map(q => ({
    id: `${id}-${q}`,
    title: `${title}, ${SHOWN[q]}`,
    unit: 'µs',
    better: 'lower',
    ...rest,
  }))
}

/** Longer than what is measured beside it, with the client's own start and warm-up. */
function bulkTiming(timing: Timing): Timing {
  return { ...timing, seconds: Math.ceil(timing.seconds + timing.warmUpSeconds) + 1 }
}

function roundTrips(at: Situation, bytes: number): Promise<Result> {
  const { seconds, warmUpSeconds } = at.timing
  return at.client<Result>('round-trips', APP_PORT.echo, bytes, seconds, warmUpSeconds)
}

function argv(host: string, bytes: number, { seconds, warmUpSeconds }: Timing): string[] {
  return clientArgv('round-trips', host, APP_PORT.echo, bytes, seconds, warmUpSeconds)
}
