/** What the data plane counts beside connections, by what is really done to its tunnel port. */
import { once } from 'node:events'
import { connect } from 'node:tls'
import t from 'tap'
import { PORT } from '../../agent/ports.ts'
import type { DataPlane } from '../../agent/worker/data-plane.ts'
import { FRAME } from '../../agent/hbone/protocol.ts'
import { becomes } from '../helpers/becomes.ts'
import { certificateFor, meshPair } from '../helpers/mesh-pair.ts'
import { connectFrom, serve } from '../helpers/pods.ts'
import { RawPeer, frame } from '../helpers/raw-peer.ts'
import { readAll } from '../helpers/tcp.ts'

/** The totals of the plane since the last look. */
function totals(plane: DataPlane): Record<string, number> {
  const { counters } = plane.counters()
  return Object.fromEntries(Object.entries(counters).filter(([name]) => name.includes('_total')))
}

await t.test('failed handshakes, refused streams and ends of sessions are counted on both sides', async t => {
  const { root, client, server, old } = await meshPair(t)

  const garbage = await connectFrom(t, old, server.ip, PORT.hbone)
  garbage.on('error', () => undefined)
  garbage.end('GET / HTTP/1.1\r\n\r\n')
  await server.record(({ reason }) => reason === 'tls')
  t.strictSame(totals(server.plane), { 'hbone_handshakes_failed_total{why="failed"}': 1 })

  const { key, chain } = await certificateFor(root, client.identity)
  const raw = await connectFrom(t, old, server.ip, PORT.hbone)
  const socket = connect({ socket: raw, key, cert: chain, ALPNProtocols: ['h2'], rejectUnauthorized: false })
  socket.on('error', () => undefined)
  await once(socket, 'secureConnect')
  const peer = new RawPeer(socket).hello()
  peer.headers(1, [[':method', 'GET']])
  t.equal(await peer.status(1), 400)
  peer.send(frame(FRAME.ping, 0, 0, Buffer.alloc(3)))
  await peer.closed()
  t.strictSame(totals(server.plane), {
    'hbone_streams_refused_total{direction="inbound",why="malformed"}': 1,
    'hbone_sessions_ended_total{direction="inbound",by="us",code="FRAME_SIZE_ERROR",limit="none"}': 1,
  })

  await serve(t, server, 8080, each => each.end('bye'))
  const app = await connectFrom(t, client, server.ip, 8080)
  app.end()
  t.equal((await readAll(app)).toString(), 'bye')
  await client.record(({ reason }) => reason === 'mtls')
  t.strictSame(totals(client.plane), {}, 'an orderly connection is none of these')
  server.plane.handle({ type: 'remove-pod', id: 1, podUid: `uid-${server.name}`, drain: { deadlineMs: 0 } })
  const ended = 'hbone_sessions_ended_total{direction="outbound",by="peer",code="NO_ERROR",limit="none"}'
  let counted: Record<string, number> = {}
  await becomes(() => Object.keys((counted = totals(client.plane))).length > 0)
  t.strictSame(counted, { [ended]: 1 })
})
