/** A fixed rate, whatever the answers do: latency from when each message was meant to leave. */
import type { Latencies } from '../clients/program.ts'
import { APP_PORT } from '../world.ts'
import { clientArgv, shown, type Measurement, type Timing } from './measurement.ts'
import { latencyMetrics } from './round-trip.ts'

const BYTES = 1024
const RATE = 1000
const CONNECTIONS = 8

type Result = Latencies & { readonly sendLateness: Latencies }

export function openLoop(): Measurement {
  return {
    id: 'open',
    tools: [],
    metrics: timing => {
      const command = shown(clientArgv('open-loop', 'SERVER', APP_PORT.echo, ...argumentsFor(timing)))
      return [
        ...latencyMetrics('open', ['p50', 'p90', 'p99', 'p999'], '1,000/s of 1 KiB', {
          command,
          about: `Echoes of 1 KiB at ${RATE} a second over ${CONNECTIONS} connections, timed from when each was meant to leave.`,
        }),
        ...latencyMetrics('open-late', ['p99'], '1,000/s of 1 KiB, sent late', {
          command,
          about:
            'How late the client itself sent, which is part of the latencies: the resolution of this measurement.',
        }),
      ]
    },
    run: async at => {
      const { p50, p90, p99, p999, sendLateness } = await at.client<Result>(
        'open-loop',
        APP_PORT.echo,
        ...argumentsFor(at.timing),
      )
      return {
        'open-p50': p50,
        'open-p90': p90,
        'open-p99': p99,
        'open-p999': p999,
        'open-late-p99': sendLateness.p99,
      }
    },
  }
}

function argumentsFor({ seconds, warmUpSeconds }: Timing): number[] {
  return [BYTES, RATE, CONNECTIONS, seconds, warmUpSeconds]
}
