/** As many bytes as go: iperf3 from the client's pod to the server's, and the agents' processor time for them. */
import { CulvertError } from '../../lib/errors.ts'
import type { MetricInfo } from '../model.ts'
import { APP_PORT } from '../world.ts'
import type { Measurement, Situation, Timing } from './measurement.ts'

/** Of `iperf3 --json`, what is looked at. */
export interface IperfReport {
  readonly error?: string
  readonly intervals: readonly { readonly sum: { readonly bytes: number } }[]
  readonly end: { readonly sum_received: { readonly bits_per_second: number } }
}

/** Its server takes one test at a time and may not have noticed the end of the last one. */
const TRIES = 5

export function bulk(streams: number): Measurement {
  const isOne = streams === 1
  return {
    id: `bulk-${streams}`,
    tools: ['iperf3'],
    metrics: timing => {
      const command = iperfArgv('SERVER', streams, timing).join(' ')
      const throughput: MetricInfo = {
        id: `bulk-${streams}`,
        title: `bulk, ${streams} ${isOne ? 'stream' : 'streams'}`,
        unit: 'Gb/s',
        better: 'higher',
        command,
        about: `Application bytes received a second through ${isOne ? 'one connection' : `${streams} connections together`}; what comes before TCP and the proxies are at speed is thrown away.`,
      }
      const cpu: MetricInfo = {
        id: 'cpu-gib',
        title: 'agents’ CPU, bulk',
        unit: 'ms/GiB',
        better: 'lower',
        command: `${command}; utime + stime of /proc/PID/stat before and after`,
        about: 'Processor time of both agents together for each GiB of the run with one stream.',
      }
      return isOne ? [throughput, cpu] : [throughput]
    },
    run: async at => {
      const cpuBefore = at.agentCpuMs()
      const report = await iperf(at, streams)
      const cpuMs = at.agentCpuMs() - cpuBefore
      const gib = report.intervals.reduce((sum, { sum: { bytes } }) => sum + bytes, 0) / 2 ** 30
      return {
        [`bulk-${streams}`]: report.end.sum_received.bits_per_second / 1e9,
        ...(isOne && at.hasAgents ? { 'cpu-gib': cpuMs / gib } : {}),
      }
    },
  }
}

/** What iperf3 counts in whole seconds is so many bytes when it is to be shorter. */
const BYTES_A_SECOND = 1e9

/** The command line; what comes first and is thrown away is whole seconds too. */
export function iperfArgv(host: string, streams: number, timing: Timing): string[] {
  const { seconds, warmUpSeconds } = timing
  const where = ['--client', host, '--port', String(APP_PORT.iperf), '--parallel', String(streams)]
  const howMuch =
    seconds < 1
      ? ['--bytes', String(Math.round(seconds * BYTES_A_SECOND))]
      : ['--time', String(Math.round(seconds)), '--omit', String(Math.round(warmUpSeconds))]
  return ['iperf3', ...where, ...howMuch, '--json']
}

async function iperf(at: Situation, streams: number): Promise<IperfReport> {
  for (let tries = 1; ; tries++) {
    try {
      return parseIperf(await at.output(iperfArgv(at.world.server.ip, streams, at.timing)))
    } catch (err) {
      if (tries === TRIES || !(err instanceof Error && /busy running a test/.test(err.message))) throw err
    }
  }
}

/** Throws `TOOL` with what iperf3 says when it failed. */
export function parseIperf(text: string): IperfReport {
  const report = JSON.parse(text) as IperfReport
  if (report.error !== undefined) throw new CulvertError('TOOL', `iperf3: ${report.error}`)
  return report
}
