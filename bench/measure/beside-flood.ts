/**
 * What a hostile peer costs others: the 64 B round trip of the two pods alone, and while somebody attacks the server's side
 * of the arm, at a rate that is the same for every arm.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { errorText } from '../../lib/errors.ts'
import type { Credentials } from '../arms/stranger.ts'
import type { Latencies } from '../clients/program.ts'
import type { MetricInfo } from '../model.ts'
import { BenchProcess } from '../process.ts'
import { APP_PORT } from '../world.ts'
import {
  clientArgv,
  clientEnv,
  shown,
  type Measurement,
  type Situation,
  type Timing,
  type Value,
} from './measurement.ts'

interface Attack {
  /** Also the name that the client has for it. */
  readonly kind: 'handshakes' | 'resets' | 'pings'
  /** A second. */
  readonly rate: number
  readonly title: string
  readonly about: string
  /** Only who has a certificate of the mesh gets that far. */
  readonly needsSession: boolean
}

const ATTACKS: readonly Attack[] = [
  {
    kind: 'handshakes',
    rate: 500,
    title: 'beside half handshakes',
    about: '500 TLS handshakes a second that are begun and never finished',
    needsSession: false,
  },
  {
    kind: 'resets',
    rate: 2000,
    title: 'beside rapid reset',
    about:
      '2,000 tunnels a second that are asked for and reset at once (CVE-2023-44487), on a session of its own',
    needsSession: true,
  },
  {
    kind: 'pings',
    rate: 5000,
    title: 'beside a PING flood',
    about: '5,000 PINGs a second (CVE-2019-9512), on a session of its own',
    needsSession: true,
  },
]

const HOSTILE_NODE = 'node-a'
const BYTES = 64
/** Until an attack is what it is going to be. */
const LEAD_MS = 300
/** An attacker that could do less than this of what it meant to was no attack, and its figure none. */
const ENOUGH = 0.9

export function besideFlood(): Measurement {
  return {
    id: 'flood',
    tools: [],
    metrics: timing => [
      metric(
        'flood-alone-p99',
        '64 B, p99 before floods',
        shown(roundTripArgv(timing)),
        'The 64 B round trip, alone.',
      ),
      ...ATTACKS.map(attack =>
        metric(
          `flood-${attack.kind}-p99`,
          `64 B, p99 ${attack.title}`,
          `${shown(floodArgv('SERVER', 'PORT', attack, timing))} & ${shown(roundTripArgv(timing))}`,
          `The 64 B round trip while another peer attacks the server's side: ${attack.about}.`,
        ),
      ),
    ],
    run: async at => {
      const { door } = at.arm
      if (!door) return {}
      const alone = await roundTrips(at)
      const found: Record<string, Value> = { 'flood-alone-p99': alone.p99 }
      const stranger = await door
        .stranger?.()
        .catch((err: unknown) => ({ why: errorText(err), isKnown: true }))
      for (const attack of ATTACKS) {
        const id = `flood-${attack.kind}-p99`
        if (!at.wants(id)) continue
        if (attack.needsSession && (!stranger || 'why' in stranger))
          found[id] = stranger ?? { why: 'takes no HTTP/2 sessions', isKnown: true }
        else
          found[id] = await beside(
            at,
            door.port,
            attack,
            stranger && 'key' in stranger ? stranger : undefined,
          )
      }
      return found
    },
  }
}

async function beside(
  at: Situation,
  port: number,
  attack: Attack,
  stranger: Credentials | undefined,
): Promise<Value> {
  const flood = new BenchProcess({
    name: `bench/clients/flood.ts ${attack.kind}`,
    argv: at.world.nodeArgv(HOSTILE_NODE, floodArgv(at.world.server.ip, port, attack, at.timing)),
    env: clientEnv(),
  })
  try {
    flood.tell(JSON.stringify(stranger ?? {}))
    await flood.line(at.signal)
    await sleep(LEAD_MS, undefined, { signal: at.signal })
    const { p99 } = await roundTrips(at)
    flood.check() // it has to have lasted for as long as it was measured beside
    const { sent, refused } = JSON.parse(await flood.line(at.signal)) as { sent: number; refused: number }
    const meant = attack.rate * floodSeconds(at.timing)
    if (sent + refused >= meant * ENOUGH && sent > 0) return p99
    return { why: `the attacker meant to send ${meant}, and could only send ${sent}` }
  } finally {
    await flood.stop('SIGKILL')
  }
}

/** Longer than what is measured beside it, with the client's own start and warm-up. */
function floodSeconds({ seconds, warmUpSeconds }: Timing): number {
  return Math.ceil(seconds + warmUpSeconds) + 2
}

function floodArgv(host: string, port: number | string, { kind, rate }: Attack, timing: Timing): string[] {
  const authority = `${host}:${APP_PORT.echo}`
  return clientArgv('flood', host, port, kind, rate, floodSeconds(timing), authority)
}

function roundTrips(at: Situation): Promise<Latencies> {
  const { seconds, warmUpSeconds } = at.timing
  return at.client<Latencies>('round-trips', APP_PORT.echo, BYTES, seconds, warmUpSeconds)
}

function roundTripArgv({ seconds, warmUpSeconds }: Timing): string[] {
  return clientArgv('round-trips', 'SERVER', APP_PORT.echo, BYTES, seconds, warmUpSeconds)
}

function metric(id: string, title: string, command: string, about: string): MetricInfo {
  return { id, title, unit: 'µs', better: 'lower', command, about }
}
