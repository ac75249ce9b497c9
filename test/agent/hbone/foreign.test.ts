import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import http2 from 'node:http2'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { ClientSession } from '../../../agent/hbone/client.ts'
import { DEFAULT_SESSION } from '../../../agent/hbone/limits.ts'
import { CODE } from '../../../agent/hbone/protocol.ts'
import { ServerSession, type ConnectRequest } from '../../../agent/hbone/server.ts'
import { Receiver } from '../../helpers/tunnel.ts'

await t.test(
  "Node's own HTTP/2 client opens a tunnel on our server, and bytes, half-close and reset cross",
  async t => {
    const { client, next } = await foreignClient(t)
    const stream = client.request({
      ':method': 'CONNECT',
      ':authority': '10.0.0.1:80',
      forwarded: 'for="10.0.0.2:5"',
    })
    const request = await next()
    t.equal(request.authority, '10.0.0.1:80')
    const gets = new Receiver(request.tunnel)
    request.respond(200)
    const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders]
    t.equal(headers[':status'], 200)
    const bytes = randomBytes(3_000_000)
    stream.end(bytes)
    t.equal(await gets.ended, 'end')
    t.ok(Buffer.concat(gets.chunks).equals(bytes))
    const chunks: Buffer[] = []
    stream.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.tunnel.write(bytes)
    request.tunnel.end()
    await once(stream, 'end')
    t.ok(Buffer.concat(chunks).equals(bytes))

    const second = client.request({ ':method': 'CONNECT', ':authority': '10.0.0.1:80' })
    second.on('error', () => undefined)
    const again = await next()
    const ends = new Receiver(again.tunnel)
    again.respond(200)
    await once(second, 'response')
    second.close(http2.constants.NGHTTP2_CONNECT_ERROR)
    t.match(await ends.ended, { h2Code: CODE.connectError, byPeer: true })
  },
)

await t.test("our client opens a tunnel on Node's own HTTP/2 server", async t => {
  const server = http2.createServer({ settings: { initialWindowSize: 1 << 20 } })
  const streams: http2.ServerHttp2Stream[] = []
  server.on('stream', (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => {
    stream.on('error', () => undefined)
    streams.push(stream)
    if (headers[':authority'] === '10.0.0.9:1') stream.respond({ ':status': 503 }, { endStream: true })
    else stream.respond({ ':status': 200 })
    stream.pipe(stream)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  await once(socket, 'connect')
  const client = new ClientSession(socket, DEFAULT_SESSION)
  t.teardown(() => {
    client.destroy()
    server.close()
  })
  await client.ready()
  const refused = await client.connect('10.0.0.9:1', [])
  t.equal(refused.response.status, 503)

  const { tunnel, response } = await client.connect('10.0.0.1:80', [['forwarded', 'for="1.2.3.4:5"']])
  t.equal(response.status, 200)
  const gets = new Receiver(tunnel)
  const bytes = randomBytes(2_500_000)
  tunnel.write(bytes)
  tunnel.end()
  t.equal(await gets.ended, 'end')
  t.ok(Buffer.concat(gets.chunks).equals(bytes))

  const other = await client.connect('10.0.0.1:80', [])
  const ends = new Receiver(other.tunnel)
  // `close(code)` of Node's server ends the stream in order first; a stream destroyed with an error does not.
  streams.at(-1)!.destroy(new Error('gone'))
  t.match(await ends.ended, { h2Code: CODE.internalError, byPeer: true })
})

async function foreignClient(
  t: Test,
): Promise<{ client: http2.ClientHttp2Session; next: () => Promise<ConnectRequest> }> {
  const queue: ConnectRequest[] = []
  const waiting: ((request: ConnectRequest) => void)[] = []
  const sessions: ServerSession[] = []
  const server = createServer({ allowHalfOpen: true }, (socket: Socket) => {
    sessions.push(
      new ServerSession(socket, DEFAULT_SESSION, request => {
        const take = waiting.shift()
        if (take) take(request)
        else queue.push(request)
      }),
    )
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = http2.connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, {
    settings: { initialWindowSize: 1 << 20 },
  })
  t.teardown(() => {
    client.destroy()
    for (const session of sessions) session.destroy()
    server.close()
  })
  const next = () => {
    const ready = queue.shift()
    return ready ? Promise.resolve(ready) : new Promise<ConnectRequest>(resolve => waiting.push(resolve))
  }
  return { client, next }
}
