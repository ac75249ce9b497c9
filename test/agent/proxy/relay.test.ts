import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import t, { type Test } from 'tap'
import { relaySockets, relayTunnel } from '../../../agent/proxy/relay.ts'
import { watchRelay, type WatchedRelay } from '../../helpers/relays.ts'
import { agentPair, readAll } from '../../helpers/tcp.ts'
import { tunnelPair } from '../../helpers/tunnel.ts'

const MIB = 1024 * 1024
const HOUR_MS = 3_600_000

interface Carried {
  readonly client: Socket
  readonly server: Socket
  /** From the client's side to the server's: one or two. */
  readonly relays: readonly WatchedRelay[]
  /** Takes the transport away from under the connection; only tunnels have one. */
  readonly lose: () => void
}

/** Two applications with the carrier under test between them. */
type Carry = (t: Test, halfClosedMs?: number) => Promise<Carried>

const throughTunnel: Carry = async (t, halfClosedMs = HOUR_MS) => {
  const [client, nearApp] = await agentPair(t)
  const [server, farApp] = await agentPair(t)
  const { near, far, server: session } = await tunnelPair(t)
  const relays = [
    watchRelay(owner => relayTunnel(nearApp, near, owner, halfClosedMs)),
    watchRelay(owner => relayTunnel(farApp, far, owner, halfClosedMs)),
  ]
  return { client, server, relays, lose: () => session.transport.destroy() }
}

const betweenSockets: Carry = async (t, halfClosedMs = HOUR_MS) => {
  const [client, near] = await agentPair(t)
  const [server, far] = await agentPair(t)
  const relay = watchRelay(owner => relaySockets(near, far, owner, halfClosedMs))
  return { client, server, relays: [relay], lose: () => undefined }
}

for (const [where, carry] of Object.entries({ throughTunnel, betweenSockets })) {
  await t.test(`bytes of both directions arrive whole and are counted (${where})`, async t => {
    const { client, server, relays } = await carry(t)
    const up = randomBytes(5 * MIB)
    const down = randomBytes(3 * MIB)
    client.end(up)
    server.end(down)
    const [atServer, atClient] = await Promise.all([readAll(server), readAll(client)])
    t.ok(atServer.equals(up))
    t.ok(atClient.equals(down))
    for (const relay of relays) t.strictSame(await relay.ended, {})
    const [first] = relays as [WatchedRelay]
    t.strictSame([first.fromApp, first.toApp], [up.length, down.length])
  })

  for (const first of ['client', 'server'] as const)
    await t.test(`what the ${first} ends is ended for the other, who may go on (${where})`, async t => {
      const carried = await carry(t)
      const [early, late] =
        first === 'client' ? [carried.client, carried.server] : [carried.server, carried.client]
      early.end('a question')
      t.equal((await readAll(late)).toString(), 'a question')
      t.notOk(late.destroyed)
      for (const piece of ['an ', 'answer', ', later']) {
        late.write(piece)
        await once(early, 'data').then(([chunk]) => t.equal(String(chunk), piece))
      }
      late.end()
      early.resume()
      await once(early, 'end')
      for (const relay of carried.relays) t.strictSame(await relay.ended, {})
    })

  for (const side of ['client', 'server'] as const)
    await t.test(`a reset by the ${side} is a reset for the other (${where})`, async t => {
      const carried = await carry(t)
      const [one, other] = [carried[side], carried[side === 'client' ? 'server' : 'client']]
      one.on('error', () => undefined)
      one.write('hello')
      await once(other, 'data')
      one.resetAndDestroy()
      const [err] = (await once(other, 'error')) as [NodeJS.ErrnoException]
      t.equal(err.code, 'ECONNRESET')
      for (const relay of carried.relays) t.type((await relay.ended).error, 'string')
    })

  await t.test(`a reset after the other side’s end is still a reset (${where})`, async t => {
    const { client, server, relays } = await carry(t)
    client.end('all I have')
    await readAll(server)
    server.resetAndDestroy()
    const [err] = (await once(client, 'error')) as [NodeJS.ErrnoException]
    t.equal(err.code, 'ECONNRESET')
    for (const relay of relays) t.type((await relay.ended).error, 'string')
  })

  await t.test(`a reader that stops holds the writer up, and nothing is lost (${where})`, async t => {
    const { client, server, relays } = await carry(t)
    const piece = randomBytes(256 * 1024)
    let written = 0
    // A write that leaves nothing queued means that somebody took it: stop when nobody does for a while.
    for (let waits = 0; waits < 50 && written < 256 * MIB;) {
      if (client.writableLength === 0) {
        client.write(piece)
        written += piece.length
        waits = 0
      } else waits++
      await new Promise(resolve => setImmediate(() => setImmediate(resolve)))
    }
    // Kernel buffers of two connections (6 MiB each at most), a stream's window, and little else.
    t.ok(written < 64 * MIB, `${Math.round(written / MIB)} MiB were taken`)
    client.end()
    let got = 0
    server.on('data', (chunk: Buffer) => (got += chunk.length))
    await once(server, 'end')
    t.equal(got, written)
    server.end()
    client.resume()
    for (const relay of relays) t.strictSame(await relay.ended, {})
  })

  await t.test(`a cut resets both sides and says why (${where})`, async t => {
    const { client, server, relays } = await carry(t)
    client.write('hello')
    await once(server, 'data')
    const resets = [once(client, 'error'), once(server, 'error')]
    relays[0]!.cut('strict')
    for (const [err] of (await Promise.all(resets)) as [NodeJS.ErrnoException][])
      t.equal(err.code, 'ECONNRESET')
    t.strictSame(await relays[0]!.ended, { error: 'strict', errorCode: 'CUT' })
    relays[0]!.cut('once more')
  })

  await t.test(`half-closed and silent for too long, both are reset (${where})`, async t => {
    const { client, server, relays } = await carry(t, 30)
    client.end('a question that gets no answer')
    await readAll(server)
    const [err] = (await once(client, 'error')) as [NodeJS.ErrnoException]
    t.equal(err.code, 'ECONNRESET')
    const ends = await Promise.all(relays.map(relay => relay.ended))
    t.match(
      ends.find(({ errorCode }) => errorCode === 'ETIMEDOUT'),
      { error: 'half-closed, and silent for 30 ms' },
    )
  })

  await t.test(`an open connection may be silent for as long as it likes (${where})`, async t => {
    const { client, server } = await carry(t, 1)
    client.write('hello')
    await once(server, 'data')
    await once(AbortSignal.timeout(50), 'abort')
    server.write('still there')
    t.equal(String((await once(client, 'data'))[0]), 'still there')
  })
}

await t.test('a tunnel that is lost is a reset for both applications and an end for none', async t => {
  const { client, server, relays, lose } = await throughTunnel(t)
  client.write('hello')
  await once(server, 'data')
  const resets = [once(client, 'error'), once(server, 'error')]
  client.on('end', () => t.fail('an end'))
  server.on('end', () => t.fail('an end'))
  lose()
  for (const [err] of (await Promise.all(resets)) as [NodeJS.ErrnoException][])
    t.equal(err.code, 'ECONNRESET')
  t.match((await relays[0]!.ended).error, /tunnel lost/)
})

await t.test('an application that was gone before anything was carried', async t => {
  const [apart, gone] = await agentPair(t)
  apart.on('error', () => undefined)
  const { near, far } = await tunnelPair(t)
  gone.destroy()
  t.match(await watchRelay(owner => relayTunnel(gone, near, owner, HOUR_MS)).ended, {
    errorCode: 'ECONNRESET',
  })
  await new Promise<void>(resolve => far.onClosed(resolve))
  const [alsoApart, alsoGone] = await agentPair(t)
  alsoApart.on('error', () => undefined)
  const [client, near2] = await agentPair(t)
  alsoGone.destroy()
  t.match(await watchRelay(owner => relaySockets(near2, alsoGone, owner, HOUR_MS)).ended, {
    errorCode: 'ECONNRESET',
  })
  const [err] = (await once(client, 'error')) as [NodeJS.ErrnoException]
  t.equal(err.code, 'ECONNRESET')
})
