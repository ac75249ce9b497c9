import type { Socket } from 'node:net'
import { TLSSocket, type TLSSocketOptions } from 'node:tls'
import t from 'tap'
import { CODE, FLAG, FRAME, SETTING } from '../../agent/hbone/protocol.ts'
import { failureFrom, serve } from '../helpers/pods.ts'
import { RawPeer, data, frame, repeat, rst, settings, type RawFrame } from '../helpers/raw-peer.ts'
import { abort } from '../helpers/tcp.ts'
import { createRoot } from '../helpers/test-pki.ts'
import { certificateOf, identityOf, Victim } from '../helpers/victim.ts'

const HOUR_MS = 3_600_000

await t.test(
  'whatever a peer’s tunnel port does, the application is reset, and the log says why',
  { timeout: 280_000 },
  async t => {
    const victim = await Victim.start(t, { patienceMs: 500 })
    const { root, stranger, client } = victim
    const identity = identityOf('stranger')
    const now = Date.now()
    const own = await certificateOf(root, { identity })
    const expired = { identity, notBeforeMs: now - HOUR_MS, notAfterMs: now - 1000 }
    const others = {
      foreign: await certificateOf(await createRoot('elsewhere'), { identity }),
      expired: await certificateOf(root, expired),
      another: await certificateOf(root, { identity: identityOf('server') }),
      nobody: await certificateOf(root, { identity: 'https://stranger/' }),
    }
    let behave: (socket: Socket) => void = () => undefined
    const sockets = new Set<Socket>()
    await serve(t, stranger, 15008, socket => {
      sockets.add(socket)
      behave(socket)
    })
    const tls = (socket: Socket, { key, chain } = own, more: TLSSocketOptions = {}): TLSSocket => {
      const options = { isServer: true, key, cert: chain, ca: root.pem, ALPNProtocols: ['h2'], ...more }
      const over = new TLSSocket(socket, options)
      over.on('error', () => over.destroy())
      return over
    }
    const http2 = (socket: Socket, ...pairs: [id: number, value: number][]) =>
      new RawPeer(tls(socket), { isServer: true }).send(
        settings(...pairs),
        frame(FRAME.settings, FLAG.ack, 0),
      )
    const answered = (answer: (peer: RawPeer, streamId: number) => unknown) => (socket: Socket) => {
      const peer = http2(socket)
      const seen = new Set<number>()
      const next = async (): Promise<void> => {
        const isNew = ({ type, streamId }: RawFrame) => type === FRAME.headers && !seen.has(streamId)
        const { streamId } = await peer.frame(isNew)
        seen.add(streamId)
        answer(peer, streamId)
        await next()
      }
      next().catch(() => undefined) // the connection has ended
    }

    const cases: [what: string, behave: (socket: Socket) => void, reason: string | RegExp, error: RegExp][] =
      [
        ['hangs up', socket => socket.destroy(), 'tls', /during the handshake|ECONNRESET|disconnected/],
        ['resets', socket => socket.resetAndDestroy(), /tls|unreachable/, /ECONNRESET|disconnected/],
        ['says nothing', socket => socket.resume(), 'tls', /handshake with .* not done within/],
        ['speaks in the clear', socket => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n'), 'tls', /./],
        ['has another root', socket => tls(socket, others.foreign), 'tls', /self.signed|unable to/i],
        ['has an expired certificate', socket => tls(socket, others.expired), 'tls', /expired/],
        ['is somebody else', socket => tls(socket, others.another), 'identity', /sa\/stranger.*sa\/server/],
        ['is nobody', socket => tls(socket, others.nobody), 'identity', /no SPIFFE ID/],
        ['has no HTTP/2', socket => tls(socket, own, { ALPNProtocols: [] }), 'tls', /does not speak HTTP\/2/],
        ['speaks TLS 1.2', socket => tls(socket, own, { maxVersion: 'TLSv1.2' }), 'tls', /./],
        ['sends no SETTINGS', socket => tls(socket).resume(), 'tls', /before HTTP\/2 began.*no SETTINGS/],
        [
          'speaks HTTP/1.1',
          socket => tls(socket).write('HTTP/1.1 200 OK\r\n\r\n'.repeat(10)),
          'tls',
          /before HTTP\/2 began/,
        ],
        ['answers nothing', answered(() => undefined), 'unreachable', /no answer within/],
        [
          'takes no streams',
          socket => http2(socket, [SETTING.maxConcurrentStreams, 0]),
          'unreachable',
          /no answer within/,
        ],
        [
          'answers 418',
          answered((peer, id) => peer.headers(id, [[':status', '418']], FLAG.endStream)),
          'unreachable',
          /answered 418/,
        ],
        [
          'answers 401',
          answered((peer, id) => peer.headers(id, [[':status', '401']], FLAG.endStream)),
          'policy',
          /answered 401/,
        ],
        [
          'answers with a novel',
          answered((peer, id) =>
            peer.headers(id, [
              [':status', '503'],
              ['culvert-error', '\u001b[31m'.repeat(5000)],
            ]),
          ),
          'unreachable',
          /^peer answered 503 \((\?\[31m){25}.{0,5}…\)$/,
        ],
        [
          'answers no number',
          answered((peer, id) => peer.headers(id, [[':status', 'ok']])),
          'unreachable',
          /PROTOCOL_ERROR/,
        ],
        [
          'answers with garbage',
          answered((peer, id) =>
            peer.send(frame(FRAME.headers, FLAG.endHeaders, id, Buffer.alloc(50, 0xff))),
          ),
          'unreachable',
          /malformed header block/,
        ],
        [
          'resets the stream',
          answered((peer, id) => peer.send(rst(id, CODE.internalError))),
          'unreachable',
          /INTERNAL_ERROR/,
        ],
        [
          'says goodbye',
          answered(peer => peer.send(frame(FRAME.goaway, 0, 0, Buffer.alloc(8)))),
          'unreachable',
          /closing/,
        ],
        ['hangs up in the middle', answered(peer => peer.socket.destroy()), 'unreachable', /tunnel lost/],
        [
          'ends the tunnel with a reset',
          answered((peer, id) => peer.headers(id, [[':status', '200']]).send(rst(id, CODE.connectError))),
          'mtls',
          /CONNECT_ERROR/,
        ],
        [
          'sends more than it may',
          answered((peer, id) =>
            peer.headers(id, [[':status', '200']]).send(repeat(data(id, Buffer.alloc(1_000_000)), 20)),
          ),
          'mtls',
          /overran its window|window overrun/,
        ],
        [
          'loses the connection',
          answered((peer, id) => {
            peer.headers(id, [[':status', '200']])
            setImmediate(() => abort(peer.socket))
          }),
          'mtls',
          /tunnel lost/,
        ],
      ]
    const before = await victim.measure()
    for (const [what, how, reason, error] of cases) {
      behave = how
      victim.records.length = 0
      const isStalled = what.startsWith('sends more')
      const failing = isStalled ? stalled(victim) : failureFrom(t, client, stranger.ip, 80)
      t.equal(await failing, 'ECONNRESET', `one that ${what}`)
      const record = await victim.record(({ source }) => source.workload === 'client')
      t.match(record, { reason, error }, 'and is named')
      for (const socket of sockets) socket.destroy()
      sockets.clear()
    }
    await victim.unharmed()
    const after = await victim.settled(before.descriptors)
    t.ok(
      after.descriptors <= before.descriptors,
      `${after.descriptors} descriptors, ${before.descriptors} before`,
    )
    t.ok(after.heldBytes < before.heldBytes + 20 * 1024 * 1024)
  },
)

/** As `failureFrom`, from an application that reads nothing. */
async function stalled(victim: Victim): Promise<string> {
  const socket = await victim.tcp(victim.stranger.ip, 80, victim.client)
  return new Promise(resolve => {
    socket.once('error', (err: NodeJS.ErrnoException) => resolve(err.code ?? ''))
    // A paused socket does not notice; one that writes does.
    const timer = setInterval(() => socket.write('x'), 20)
    socket.once('close', () => clearInterval(timer))
  })
}
