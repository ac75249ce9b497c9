// Against node:http2, whose HPACK is nghttp2's: each side's header blocks are read by the other.
import { once } from 'node:events'
import http2, { type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2'
import net, { type AddressInfo, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { HpackDecoder } from '../../../../agent/hbone/hpack/decoder.ts'
import { HpackEncoder } from '../../../../agent/hbone/hpack/encoder.ts'
import { decodeList, type HeaderList } from '../../../helpers/hpack.ts'

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
const HEADERS = 1
const SETTINGS = 4
const CONTINUATION = 9
const END_STREAM = 1
const END_HEADERS = 4

function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

/** Calls back with each header block that comes in on the socket. */
function onHeaderBlock(socket: Socket, skip: number, seen: (block: Buffer) => void): void {
  let buffered = Buffer.alloc(0)
  let left = skip
  let block: Buffer[] = []
  socket.on('data', (chunk: Buffer) => {
    buffered = Buffer.concat([buffered, chunk])
    if (buffered.length < left) return
    buffered = buffered.subarray(left)
    left = 0
    while (buffered.length >= 9 && buffered.length >= 9 + buffered.readUIntBE(0, 3)) {
      const end = 9 + buffered.readUIntBE(0, 3)
      const [type, flags] = [buffered[3]!, buffered[4]!]
      const payload = buffered.subarray(9, end)
      buffered = buffered.subarray(end)
      if (type !== HEADERS && type !== CONTINUATION) continue
      t.equal(flags & 0x28, 0, 'node:http2 neither pads nor prioritises')
      block.push(payload)
      if ((flags & END_HEADERS) === 0) continue
      seen(Buffer.concat(block))
      block = []
    }
  })
}

/** What node:http2's client puts on the wire for the requests, read by our decoder. */
async function requestsOfNode(
  t: Test,
  requests: readonly IncomingHttpHeaders[],
  settings: Buffer,
): Promise<[string, string][][]> {
  const decoder = new HpackDecoder({ maxTableSize: 65_536, maxHeaderListSize: 1_000_000 })
  const lists: [string, string][][] = []
  const all = Promise.withResolvers<void>()
  const server = net.createServer(socket => {
    socket.on('error', all.reject)
    socket.write(frame(SETTINGS, 0, 0, settings))
    onHeaderBlock(socket, PREFACE.length, block => {
      lists.push(decodeList(decoder, block))
      if (lists.length === requests.length) all.resolve()
    })
    t.teardown(() => socket.destroy())
  })
  server.listen(0, '127.0.0.1')
  t.teardown(() => server.close())
  await once(server, 'listening')
  const session = http2.connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  session.on('error', all.reject)
  t.teardown(() => session.destroy())
  await once(session, 'remoteSettings') // so that the table size asked for holds from the first request on
  for (const request of requests) session.request(request).on('error', all.reject)
  await all.promise
  return lists
}

function tableSize(bytes: number): Buffer {
  const setting = Buffer.alloc(6)
  setting.writeUInt16BE(1, 0)
  setting.writeUInt32BE(bytes, 2)
  return setting
}

function tunnel(at: number): IncomingHttpHeaders {
  return {
    ':method': 'CONNECT',
    ':authority': `10.1.2.${at % 5}:8080`,
    baggage: `k8s.cluster.name=Kubernetes,k8s.namespace.name=shop-${at % 7}`,
    forwarded: `for="10.1.2.2:${50_000 + at}"`,
    'x-padding': 'abc '.repeat(at).trim(),
  }
}

for (const bytes of [0, 100, 4096, 65_536]) {
  await t.test(`a foreign client's requests are read, with a table of ${bytes} bytes`, async t => {
    const requests = Array.from({ length: 80 }, (_, at) => tunnel(at))
    const lists = await requestsOfNode(t, requests, tableSize(bytes))
    for (const [at, request] of requests.entries()) t.strictSame(lists[at], Object.entries(request))
  })
}

await t.test('every character that a header may hold is read from Huffman strings', async t => {
  // In between short words, so that the Huffman form is the shorter one and the foreign peer chooses it.
  const codes = [9, ...Array.from({ length: 256 - 32 }, (_, at) => at + 32).filter(code => code !== 127)]
  const values = codes.map(code => `${'a'.repeat(20)}${String.fromCharCode(code)}${'0'.repeat(20)}`)
  const request = Object.fromEntries(values.map((value, at) => [`x-${at}`, value]))
  const [list] = await requestsOfNode(
    t,
    [{ ':method': 'CONNECT', ':authority': 'a:1', ...request }],
    Buffer.alloc(0),
  )
  t.strictSame(
    list!.slice(2).map(([, value]) => value),
    values,
  )
})

await t.test('a foreign server reads our requests, and we its answers', async t => {
  const sent: HeaderList[] = Array.from({ length: 40 }, (_, at) => [
    [':method', 'CONNECT'],
    [':authority', `10.1.2.${at % 5}:8080`],
    ['baggage', `k8s.cluster.name=Kubernetes,k8s.namespace.name=${'n'.repeat(at * 5)}`],
    ['forwarded', `for="10.1.2.2:${50_000 + at}"`],
    ['authorization', 'Bearer x'],
  ])
  const received: string[][] = []
  const answers: [string, string][][] = []
  const all = Promise.withResolvers<void>()

  const server = http2.createServer({ settings: { headerTableSize: 600 } })
  server.on('sessionError', all.reject)
  server.on('stream', (stream: ServerHttp2Stream, _headers, _flags, rawHeaders: string[]) => {
    stream.on('error', all.reject)
    received.push(rawHeaders)
    stream.respond(
      { ':status': 200, baggage: `k8s.namespace.name=shop-${received.length % 3}` },
      { endStream: true },
    )
  })
  server.listen(0, '127.0.0.1')
  t.teardown(() => server.close())
  await once(server, 'listening')

  const socket = net.connect((server.address() as AddressInfo).port, '127.0.0.1')
  socket.on('error', all.reject)
  t.teardown(() => socket.destroy())
  const encoder = new HpackEncoder()
  const decoder = new HpackDecoder()
  onHeaderBlock(socket, 0, block => {
    answers.push(decodeList(decoder, block))
    if (answers.length === sent.length) all.resolve()
  })
  socket.write(
    Buffer.concat([PREFACE, frame(SETTINGS, 0, 0, Buffer.alloc(0)), frame(SETTINGS, 1, 0, Buffer.alloc(0))]),
  )
  for (const [at, list] of sent.entries()) {
    // The server's limit, once acknowledged, and another change half way.
    if (at === 0) encoder.setPeerMaxTableSize(600)
    if (at === 20) encoder.setPeerMaxTableSize(200)
    socket.write(frame(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, encoder.encode(list)))
  }
  await all.promise

  t.strictSame(
    received,
    sent.map(list => list.flat()),
  )
  for (const [at, answer] of answers.entries()) {
    t.strictSame(answer[0], [':status', '200'])
    t.ok(
      answer.some(
        ([name, value]) => name === 'baggage' && value === `k8s.namespace.name=shop-${(at + 1) % 3}`,
      ),
      'the answer of its own request',
    )
  }
})
