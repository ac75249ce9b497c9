/** How connections end, and what is no connection. */
import { until } from '../../lab/demo/facts.ts'
import { metricsOf } from '../../test/cluster/agents.ts'
import { valueOf } from '../../test/helpers/lab-facts.ts'
import type { Measured } from './table.ts'
import { clientOf, serverIp, type BenchWorld } from './world.ts'

const UDP_FLOWS = 20
const CLIENT = clientOf('mesh')

export async function measureEnds(world: BenchWorld): Promise<Record<string, Measured>> {
  const { kubectl } = world
  world.progress('ends of connections')
  const ip = await serverIp(world, 'mesh')
  const reset = await kubectl.exec(CLIENT, ['node', 'bench/cluster/ask-reset.ts', ip, '7003'])
  const refused = await kubectl.exec(CLIENT, ['node', 'test/cluster/get.ts', `http://${ip}:9/`])
  const { error = 'answered' } = JSON.parse(refused.stdout.toString()) as { error?: string }
  return {
    udp: await udp(world, ip),
    'server-reset': { text: reset.stdout.toString().trim() },
    'refused-port': { text: `connect succeeds, then ${error}` },
  }
}

/** Flows of one datagram each, to a port where nobody listens, and what the client's agent says of them. */
async function udp({ kubectl, nodes }: BenchWorld, ip: string): Promise<Measured> {
  const counted = async () =>
    valueOf(await metricsOf(kubectl, nodes.near), 'culvert_uncaptured_packets_total{reason="udp"}')
  const before = await counted()
  const send = `const { createSocket } = require('node:dgram')
for (let at = 0; at < ${UDP_FLOWS}; at++) { const socket = createSocket('udp4'); socket.send('x', 9999, '${ip}', () => socket.close()) }`
  await kubectl.exec(CLIENT, ['node', '-e', send])
  const flows = await until('UDP to be counted', 30_000, async () => {
    const now = await counted()
    return now - before >= UDP_FLOWS ? now - before : undefined
  })
  return { text: `plaintext, counted by the kernel: ${flows} of ${UDP_FLOWS} flows`, value: flows }
}
