/** The limits of the tunnel's path beside the session's own: what is kept, tried and read, just to each and just over it. */
import { once } from 'node:events'
import { TLSSocket } from 'node:tls'
import t, { type Test } from 'tap'
import { ConnectionBook } from '../../agent/proxy/connection.ts'
import { parseBaggage } from '../../agent/proxy/baggage.ts'
import { parseForwarded } from '../../agent/proxy/forwarded.ts'
import { DEFAULT_PROXY } from '../../agent/proxy/pod-context.ts'
import { PodProxy } from '../../agent/proxy/pod-proxy.ts'
import type { ClientSession } from '../../agent/hbone/client.ts'
import { BULK_BYTES, BULK_MS, DEFAULT_SESSION } from '../../agent/hbone/limits.ts'
import { HbonePool } from '../../agent/hbone/pool.ts'
import { CODE, FRAME, FRAME_HEADER_BYTES } from '../../agent/hbone/protocol.ts'
import { PORT } from '../../agent/ports.ts'
import type { Endpoint, RouteDecision } from '../../agent/worker/messages.ts'
import { certificateFor, meshPair } from '../helpers/mesh-pair.ts'
import { connectFrom, failureFrom, serve } from '../helpers/pods.ts'
import { RawPeer, rst, settings } from '../helpers/raw-peer.ts'
import { Receiver, tunnelPair } from '../helpers/tunnel.ts'

const STRANGER = 'spiffe://cluster.local/ns/shop/sa/stranger'
/** Attempts at one peer at once, and sessions with one before bulk is shared (pool.ts). */
const MOST_ATTEMPTS = 4
const MOST_FOR_BULK = 4
/** Endpoints tried for one connection, and tries at the same one after the first (outbound.ts). */
const MOST_TRIES = 3
const MOST_AGAINS = 4
/** Decisions kept for one pod (pod-proxy.ts). */
const MOST_KEPT = 4096

const never = new AbortController().signal

await t.test('a forwarded header of 1,280 characters is read, a longer one is not', t => {
  const header = (length: number) => {
    const start = 'for="10.0.0.1:1";x='
    return start + 'y'.repeat(length - start.length)
  }
  t.match(parseForwarded(header(1280)), { for: { ip: '10.0.0.1', port: 1 } })
  t.equal(parseForwarded(header(1281)), undefined)
  t.end()
})

await t.test('baggage of 8,192 characters and 64 members is read, a longer one and later ones are not', t => {
  const header = (length: number) => `service.name=web,x=${'y'.repeat(length - 19)}`
  t.strictSame(parseBaggage(header(8192)), { service: 'web' })
  t.strictSame(parseBaggage(header(8193)), {})
  t.strictSame(parseBaggage(`${'a=b,'.repeat(63)}service.name=web`), { service: 'web' })
  t.strictSame(parseBaggage(`${'a=b,'.repeat(64)}service.name=web`), {})
  t.strictSame(parseBaggage(`service.name=${'w'.repeat(253)}`), { service: 'w'.repeat(253) })
  t.strictSame(parseBaggage(`service.name=${'w'.repeat(254)}`), {})
  t.end()
})

await t.test(
  '4,096 decisions are kept for a pod, and the one that was used least recently gives way',
  async t => {
    const asked: string[] = []
    const forward: RouteDecision = { kind: 'forward', endpoints: [] }
    const admit = { kind: 'admit', reason: 'mtls', peer: {} } as const
    const note = <T>(key: string, decision: T): Promise<T> => {
      asked.push(key)
      return Promise.resolve(decision)
    }
    const control = {
      route: ({ ip, port }: { ip: string; port: number }) => note(`${ip}:${port}`, forward),
      admit: ({ sourceIp, port }: { sourceIp: string; port: number }) => note(`${sourceIp}:${port}`, admit),
    }
    const options = { ...DEFAULT_PROXY, session: DEFAULT_SESSION, clusterId: 'Kubernetes' }
    const book = new ConnectionBook({ opened: () => undefined, closed: () => undefined })
    const identity = 'spiffe://cluster.local/ns/shop/sa/web'
    const pod = {
      uid: '1',
      namespace: 'shop',
      name: 'web',
      serviceAccount: 'web',
      identity,
      ips: [],
      netnsFd: -1,
    }
    const proxy = new PodProxy(pod, { options, control, book, log: () => undefined })
    for (const ask of [
      (port: number) => proxy.route('10.0.0.1', port),
      (port: number) => proxy.admit({ sourceIp: '10.0.0.1', identity, ip: '10.0.0.2', port }),
    ]) {
      asked.length = 0
      for (let port = 1; port <= MOST_KEPT; port++) await ask(port)
      t.equal(asked.length, MOST_KEPT)
      await ask(1)
      t.equal(asked.length, MOST_KEPT, 'the first is still there')
      await ask(MOST_KEPT + 1)
      await ask(1)
      t.equal(asked.length, MOST_KEPT + 1, 'it was used a moment ago')
      await ask(2)
      t.strictSame(asked.slice(MOST_KEPT), [`10.0.0.1:${MOST_KEPT + 1}`, '10.0.0.1:2'])
    }
  },
)

await t.test('a peer that hangs is tried four times at once, and no more often', async t => {
  const impatienceMs = 5
  const pool = new HbonePool({ maxStreams: 100, idleMs: 60_000, impatienceMs })
  let attempts = 0
  const most = Promise.withResolvers<void>()
  const hang = () => {
    if (++attempts === MOST_ATTEMPTS) most.resolve()
    return new Promise<ClientSession>(() => undefined)
  }
  const waiting: Promise<unknown>[] = []
  const come = setInterval(() => waiting.push(pool.acquire('peer', hang, never).catch(() => undefined)), 1)
  t.teardown(() => clearInterval(come))
  await most.promise
  // Time for many more, if any were made.
  await new Promise(resolve => setTimeout(resolve, 20 * impatienceMs))
  clearInterval(come)
  t.equal(attempts, MOST_ATTEMPTS)
  pool.destroy()
  await Promise.all(waiting)
})

/** The clock of everything that measures time by itself, standing still until told otherwise. */
function stopClock(t: Test): { goOn: (ms: number) => void } {
  let now = Math.ceil(performance.now())
  t.intercept(performance, 'now', { value: () => now })
  return { goOn: ms => (now += ms) }
}

/** Two sessions with a tunnel that has carried so many bytes, read from an application as the relay does. */
async function carrying(t: Test, bytes: number) {
  const pair = await tunnelPair(t)
  const received = new Receiver(pair.far)
  new Receiver(pair.near).ended.catch(() => undefined)
  const buffer = Buffer.alloc(FRAME_HEADER_BYTES + 16_384)
  const carry = async (more: number): Promise<void> => {
    for (let left = more; left > 0;) {
      const length = Math.min(left, pair.near.room, 16_384)
      const until = received.bytes + length
      if (length > 0) pair.near.sendInPlace(buffer, length)
      else await new Promise(setImmediate)
      await received.until(until)
      left -= length
    }
  }
  await carry(bytes)
  return { ...pair, carry }
}

await t.test(
  'a session counts as carrying bulk from a megabyte of one stream on, for two seconds',
  async t => {
    const clock = stopClock(t)
    const { client, server, carry } = await carrying(t, BULK_BYTES - 1)
    t.notOk(client.isBulky || server.isBulky)
    await carry(1)
    t.ok(client.isBulky && server.isBulky, 'at both ends')
    clock.goOn(BULK_MS - 1)
    t.ok(client.isBulky)
    clock.goOn(1)
    t.notOk(client.isBulky || server.isBulky)
  },
)

await t.test('a new stream has a session without bulk, up to four sessions with one peer', async t => {
  stopClock(t)
  const pool = new HbonePool({ maxStreams: 100, idleMs: 60_000, impatienceMs: 60_000 })
  t.teardown(() => pool.destroy())
  const opened: Awaited<ReturnType<typeof carrying>>[] = []
  const open = async () => {
    const pair = await carrying(t, 1000)
    opened.push(pair)
    return pair.client
  }
  const sessions: ClientSession[] = []
  for (let count = 1; count <= MOST_FOR_BULK; count++) {
    sessions.push(await pool.acquire('peer', open, never))
    t.equal(pool.sessionCount, count)
    await opened.at(-1)!.carry(BULK_BYTES)
  }
  t.ok(sessions.every(session => session.isBulky))
  const shared = await pool.acquire('peer', open, never)
  t.equal(pool.sessionCount, MOST_FOR_BULK)
  t.ok(sessions.includes(shared))
})

await t.test('three endpoints are tried for one connection, and no fourth', async t => {
  const { client, server, old } = await meshPair(t)
  await serve(t, old, 7000, socket => socket.end('here'))
  const endpoint = (port: number, weight: number): Endpoint => {
    const via = { kind: 'tcp', reason: 'peer-not-enrolled' } as const
    return { ip: old.ip, port, weight, peer: {}, via }
  }
  // The good one comes last: of those that have no weight one is only taken when no other is left.
  for (const [dead, carried] of [
    [MOST_TRIES - 1, true],
    [MOST_TRIES, false],
  ] as const) {
    client.route = () => {
      const others = Array.from({ length: dead }, (_, at) => endpoint(6000 + at, 1))
      return { kind: 'forward', endpoints: [...others, endpoint(7000, 0)] }
    }
    client.plane.handle({ type: 'invalidate' })
    const before = client.plane.counters().dialled['uid-client']!
    if (carried) {
      const app = await connectFrom(t, client, server.ip, 80)
      const [text] = (await once(app, 'data')) as [Buffer]
      t.equal(text.toString(), 'here')
    } else t.equal(await failureFrom(t, client, server.ip, 80), 'ECONNRESET')
    t.equal(client.plane.counters().dialled['uid-client']! - before, MOST_TRIES)
  }
  t.match(await client.record(({ error }) => error !== undefined), {
    reason: 'unreachable',
    errorCode: 'ECONNREFUSED',
  })
})

await t.test(
  'an endpoint whose agent gives up each time is tried four times again, and no fifth',
  async t => {
    const { client, old, root } = await meshPair(t)
    const { key, chain } = await certificateFor(root, STRANGER)
    let asked = 0
    let goodFrom = Infinity
    const accepted = Promise.withResolvers<void>()
    const answer = (peer: RawPeer, streamId: number) => {
      if (++asked < goodFrom) peer.send(rst(streamId, CODE.refusedStream))
      else {
        peer.headers(streamId, [[':status', '200']])
        accepted.resolve()
      }
    }
    await serve(t, old, PORT.hbone, socket => {
      const options = {
        isServer: true,
        key,
        cert: chain,
        ca: root.pem,
        requestCert: true,
        ALPNProtocols: ['h2'],
      }
      const over = new TLSSocket(socket, options)
      over.on('error', () => over.destroy())
      const peer = new RawPeer(over, { isServer: true }).send(settings())
      const seen = new Set<number>()
      const next = async (): Promise<void> => {
        const { streamId } = await peer.frame(each => each.type === FRAME.headers && !seen.has(each.streamId))
        seen.add(streamId)
        answer(peer, streamId)
        await next()
      }
      next().catch(() => undefined) // the connection has ended
    })
    client.route = ({ ip, port }) => {
      const via = { kind: 'hbone', port: PORT.hbone, identities: [STRANGER] } as const
      return { kind: 'forward', endpoints: [{ ip, port, weight: 1, peer: {}, via }] }
    }
    t.equal(await failureFrom(t, client, old.ip, 80), 'ECONNRESET')
    t.equal(asked, 1 + MOST_AGAINS)
    t.match(await client.record(({ error }) => error !== undefined), { errorCode: 'STREAM_RESET' })
    asked = 0
    goodFrom = 1 + MOST_AGAINS
    const app = await connectFrom(t, client, old.ip, 80)
    await accepted.promise
    t.equal(client.closed.length, 1, 'it is carried')
    app.resetAndDestroy()
    t.match(await client.record(({ reason }) => reason === 'mtls'), { destination: { ip: old.ip } })
    t.equal(asked, goodFrom)
  },
)
