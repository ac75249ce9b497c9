/** New connections a second, one after the other and 32 at a time, and the agents' processor time for each. */
import type { MetricInfo } from '../model.ts'
import { APP_PORT } from '../world.ts'
import { clientArgv, shown, type Measurement } from './measurement.ts'

export function connections(concurrency: number): Measurement {
  const id = `conn-${concurrency}`
  const isOne = concurrency === 1
  return {
    id,
    tools: [],
    metrics: ({ seconds }) => {
      const command = shown(clientArgv('connections', 'SERVER', APP_PORT.echo, concurrency, seconds))
      const rate: MetricInfo = {
        id,
        title: isOne ? 'new connections' : `new connections, ${concurrency} at a time`,
        unit: '1/s',
        better: 'higher',
        command,
        about: `Connect, one byte there and back, close${isOne ? '; then the next' : `; ${concurrency} such loops at once`}.`,
      }
      const cpu: MetricInfo = {
        id: 'cpu-conn',
        title: 'agents’ CPU, new connection',
        unit: 'µs',
        better: 'lower',
        command: `${command}; utime + stime of /proc/PID/stat before and after`,
        about: 'Processor time of both agents together for each connection of the run one after the other.',
      }
      return isOne ? [rate, cpu] : [rate]
    },
    run: async at => {
      const cpuBefore = at.agentCpuMs()
      const { carried, seconds } = await at.client<{ carried: number; seconds: number }>(
        'connections',
        APP_PORT.echo,
        concurrency,
        at.timing.seconds,
      )
      const cpuMs = at.agentCpuMs() - cpuBefore
      return {
        [id]: carried / seconds,
        ...(isOne && at.hasAgents ? { 'cpu-conn': (cpuMs * 1000) / carried } : {}),
      }
    },
  }
}
