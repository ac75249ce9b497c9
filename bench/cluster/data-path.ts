/**
 * The data path between two nodes, with the mesh and without it, in turns: what the machine does differently from one
 * minute to the next is in both.
 */
import { median } from '../stats.ts'
import type { Latencies } from '../clients/program.ts'
import type { IperfReport } from '../measure/bulk.ts'
import type { Measured } from './table.ts'
import { agentUsage, ARMS, clientOf, runClient, serverIp, type Arm, type BenchWorld } from './world.ts'

interface Round {
  readonly rtP50: number
  readonly rtP99: number
  readonly connP50: number
  readonly connRate: number
  readonly bulk1: number
  readonly bulk8: number
  /** Of both agents: µs a round trip, µs a connection, s a gigabyte. */
  readonly cpu: { readonly rt: number; readonly conn: number; readonly gb: number }
}

const SECONDS = 3
const WARM_UP_SECONDS = 1
/** An agent runs for months; code that was compiled for round trips is compiled once more for connections. */
const AGENTS_WARM_UP_SECONDS = 3
/** Of connections: without a mesh more would use up the client's ports, which are kept for a minute. */
const CONNECT_SECONDS = 1

export async function measureDataPath(world: BenchWorld): Promise<Record<string, Measured>> {
  const rounds: Record<Arm, Round[]> = { none: [], mesh: [] }
  // A warm-up for both: an agent runs for months.
  for (const arm of ARMS) await oneRound(world, arm)
  for (let round = 0; round < world.rounds; round++)
    for (const arm of round % 2 === 0 ? ARMS : ARMS.toReversed()) {
      world.progress(
        `data path, round ${round + 1} of ${world.rounds}: ${arm === 'mesh' ? 'mesh' : 'no mesh'}`,
      )
      rounds[arm].push(await oneRound(world, arm))
    }
  const row = (pick: (round: Round) => number, unit: string, digits = 0): Measured => {
    const [none, mesh] = [rounds.none.map(pick), rounds.mesh.map(pick)]
    const ratio = median(mesh.map((value, at) => value / none[at]!))
    const show = (value: number) => value.toLocaleString('en', { maximumFractionDigits: digits })
    const spread = `${show(Math.min(...mesh))}–${show(Math.max(...mesh))}`
    return {
      text: `${show(median(mesh))} ${unit} (${spread}; no mesh ${show(median(none))}; ${ratio.toFixed(2)} ×)`,
      value: median(mesh),
      ratio,
      samples: { none, mesh },
    }
  }
  const cpu = (pick: (round: Round) => number, unit: string, digits = 0): Measured => {
    const values = rounds.mesh.map(pick)
    return {
      text: `${median(values).toFixed(digits)} ${unit}`,
      value: median(values),
      samples: { mesh: values },
    }
  }
  return {
    'rt-p50': row(round => round.rtP50, 'µs'),
    'rt-p99': row(round => round.rtP99, 'µs'),
    'conn-p50': row(round => round.connP50, 'µs'),
    'conn-rate': row(round => round.connRate, '/s'),
    'bulk-1': row(round => round.bulk1, 'Gb/s', 2),
    'bulk-8': row(round => round.bulk8, 'Gb/s', 2),
    'cpu-rt': cpu(round => round.cpu.rt, 'µs'),
    'cpu-conn': cpu(round => round.cpu.conn, 'µs'),
    'cpu-gb': cpu(round => round.cpu.gb, 's', 2),
  }
}

async function oneRound(world: BenchWorld, arm: Arm): Promise<Round> {
  const client = clientOf(arm)
  const host = await serverIp(world, arm)
  const timed = async <T>(work: () => Promise<T>): Promise<[T, number]> => {
    const before = await cpuMs(world)
    const result = await work()
    return [result, (await cpuMs(world)) - before]
  }
  const [trips, tripsCpuMs] = await timed(() =>
    runClient<Latencies & { total: number }>(world, client, [
      'bench/clients/round-trips.ts',
      host,
      '7010',
      '64',
      String(SECONDS),
      String(WARM_UP_SECONDS),
    ]),
  )
  const connect = (seconds: number) =>
    runClient<{ carried: number; seconds: number; latencies: Latencies }>(world, client, [
      'bench/clients/connections.ts',
      host,
      '7010',
      '1',
      String(seconds),
    ])
  // Of what lies between: without a mesh there is nothing to warm up, and ports to spare.
  if (arm === 'mesh') await connect(AGENTS_WARM_UP_SECONDS)
  const [connections, connectionsCpuMs] = await timed(() => connect(CONNECT_SECONDS))
  const [bulk1, bulkCpuMs] = await timed(() => iperf(world, arm, host, 1))
  const bulk8 = await iperf(world, arm, host, 8)
  const bytes = bulk1.intervals.reduce((sum, interval) => sum + interval.sum.bytes, 0)
  return {
    rtP50: trips.p50,
    rtP99: trips.p99,
    connP50: connections.latencies.p50,
    connRate: connections.carried / connections.seconds,
    bulk1: bulk1.end.sum_received.bits_per_second / 1e9,
    bulk8: bulk8.end.sum_received.bits_per_second / 1e9,
    cpu: {
      rt: (tripsCpuMs * 1000) / trips.total,
      conn: (connectionsCpuMs * 1000) / connections.carried,
      gb: bulkCpuMs / 1000 / (bytes / 1e9),
    },
  }
}

async function iperf({ kubectl }: BenchWorld, arm: Arm, host: string, streams: number): Promise<IperfReport> {
  const argv = ['iperf3', '-c', host, '-t', String(SECONDS), '-O', '1', '-P', String(streams), '--json']
  for (let attempt = 1; ; attempt++) {
    const { stdout } = await kubectl.exec(clientOf(arm), argv)
    const report = JSON.parse(stdout.toString()) as IperfReport
    // Its server takes one test at a time and may not have noticed the end of the last one.
    if (report.error === undefined) return report
    if (attempt === 10) throw new Error(`iperf3: ${report.error}`)
  }
}

async function cpuMs(world: BenchWorld): Promise<number> {
  return (await agentUsage(world)).reduce((sum, usage) => sum + usage.cpuMs, 0)
}
