/**
 * A server that has said everything may ask for no more: END_STREAM, then RST_STREAM(NO_ERROR). Go's net/http does whenever a
 * handler returns before its request has ended. RFC 9113 §8.1: what it said must not be discarded for that.
 */
import { once } from 'node:events'
import { TLSSocket } from 'node:tls'
import t from 'tap'
import { PORT } from '../../agent/ports.ts'
import { CODE, FLAG, FRAME } from '../../agent/hbone/protocol.ts'
import { certificateFor, meshPair } from '../helpers/mesh-pair.ts'
import { connectFrom, serve } from '../helpers/pods.ts'
import { RawPeer, data, rst, settings } from '../helpers/raw-peer.ts'

const STRANGER = 'spiffe://cluster.local/ns/shop/sa/stranger'
const FRAMES = 240
const FRAME_BYTES = 16_384

await t.test(
  '§8.1 after RST_STREAM(NO_ERROR) the application still gets all that was said before',
  async t => {
    const { client, old, root } = await meshPair(t)
    const { key, chain } = await certificateFor(root, STRANGER)
    const said = Promise.withResolvers<void>()
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
      const answer = async (): Promise<void> => {
        const { streamId } = await peer.frame(({ type }) => type === FRAME.headers)
        peer.headers(streamId, [[':status', '200']])
        for (let at = 0; at < FRAMES; at++) peer.send(data(streamId, Buffer.alloc(FRAME_BYTES)))
        peer.send(data(streamId, Buffer.alloc(0), FLAG.endStream), rst(streamId, CODE.noError))
        await peer.pong()
      }
      answer().then(said.resolve, said.reject)
    })
    client.route = ({ ip, port }) => {
      const via = { kind: 'hbone', port: PORT.hbone, identities: [STRANGER] } as const
      return { kind: 'forward', endpoints: [{ ip, port, weight: 1, peer: {}, via }] }
    }
    const app = await connectFrom(t, client, old.ip, 80)
    const over = Promise.race([once(app, 'end'), once(app, 'close')])
    app.pause()
    await said.promise
    let bytes = 0
    app.on('data', (chunk: Buffer) => (bytes += chunk.length)).resume()
    await over
    t.equal(bytes, FRAMES * FRAME_BYTES)
  },
)
