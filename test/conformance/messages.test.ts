import t from 'tap'
import { CODE, FLAG, FRAME } from '../../agent/hbone/protocol.ts'
import { data, frame, rst, type RawPeer } from '../helpers/raw-peer.ts'
import type { HeaderList } from '../helpers/hpack.ts'
import { TARGET, accept, inState, probeClient, probeServer, verdict } from '../helpers/foreign-session.ts'
import { Receiver } from '../helpers/tunnel.ts'

const METHOD = [':method', 'CONNECT'] as const
const AUTHORITY = [':authority', TARGET] as const
const both = (...more: HeaderList): HeaderList => [METHOD, AUTHORITY, ...more]

await t.test(
  '§8.5 a CONNECT has a method and an authority, in either order, and any other fields',
  async t => {
    const { peer, requests } = await probeServer(t)
    const lists: HeaderList[] = [
      both(),
      [AUTHORITY, METHOD],
      both(['x', '']),
      both(['x', 'a b\tc'], ['y', '"\\;=,()<>@[]{}?/~`^|']),
      both(['x-high', '\u0080\u00ff']),
      both(['host', 'elsewhere:1']), // says nothing here: the authority is the target
      both(['x', '1'], ['x', '2']),
      both(['te', 'trailers']),
      both(['content-length', '0']),
      both(['baggage', 'k'.repeat(4000)]),
    ]
    for (const [at, list] of lists.entries()) {
      peer.headers(1 + 2 * at, list)
      t.equal(await peer.status(1 + 2 * at), 200, JSON.stringify(list).slice(0, 60))
      t.equal(requests.at(-1)!.authority, TARGET)
    }
    t.equal(requests[6]!.headers.get('x'), '1, 2', '§5.3 of RFC 9110: fields of one name are one list')
  },
)

/** RFC 9113 §8.1.1 lets a server answer a malformed request before it ends the stream: 400, and nothing is asked for. */
const MALFORMED: [section: string, list: HeaderList][] = [
  ['§8.3 no fields at all', []],
  ['§8.3.1 no method', [AUTHORITY]],
  ['§8.5 no authority', [METHOD]],
  ['§8.5 an authority that is empty', [METHOD, [':authority', '']]],
  ['§8.5 host is no authority', [METHOD, ['host', TARGET]]],
  ['§8.5 a path', both([':path', '/'])],
  ['§8.5 a scheme', both([':scheme', 'https'])],
  ['§8.5 both, as in a request that is no CONNECT', both([':scheme', 'https'], [':path', '/'])],
  ['§8.3 a method twice', [METHOD, ...both()]],
  ['§8.3 an authority twice', both(AUTHORITY)],
  ['§8.3 pseudo-headers after others', [METHOD, ['x', 'y'], AUTHORITY]],
  ['§8.2.1 a name in upper case', both(['X-Upper', 'y'])],
  ['§8.2.1 one letter in upper case', both(['baggagE', 'y'])],
  ['§8.2.1 a name that is empty', both(['', 'y'])],
  ['§8.2.1 a space in a name', both(['a b', 'y'])],
  ['§8.2.1 a control character in a name', both(['a\u0001', 'y'])],
  ['§8.2.1 a delete character in a name', both(['a\u007f', 'y'])],
  ['§8.2.1 a name above ASCII', both(['a\u00e4', 'y'])],
  ['§8.2.1 a colon inside a name', both(['a:b', 'y'])],
  ['§8.2.1 a NUL in a value', both(['x', 'a\u0000b'])],
  ['§8.2.1 a line feed in a value', both(['x', 'a\nb'])],
  ['§8.2.1 a carriage return in a value', both(['x', 'a\rb'])],
  ['§8.2.1 a value that begins with a space', both(['x', ' y'])],
  ['§8.2.1 a value that ends with a tab', both(['x', 'y\t'])],
  ['§8.2.1 a line feed in the authority', [METHOD, [':authority', `${TARGET}\r\nx: y`]]],
  ['§8.2.2 connection', both(['connection', 'close'])],
  ['§8.2.2 keep-alive', both(['keep-alive', 'timeout=5'])],
  ['§8.2.2 proxy-connection', both(['proxy-connection', 'keep-alive'])],
  ['§8.2.2 transfer-encoding', both(['transfer-encoding', 'chunked'])],
  ['§8.2.2 upgrade', both(['upgrade', 'h2c'])],
  ['§8.2.2 a te that is not trailers', both(['te', 'gzip'])],
  ['§8.3 a pseudo-header of answers', both([':status', '200'])],
  ['§8.3 a pseudo-header that nobody defined', both([':x', 'y'])],
  ['§8.3 a pseudo-header that nobody announced', both([':protocol', 'websocket'])],
  ['another method', [[':method', 'GET'], AUTHORITY]],
  ['another method, whole', [[':method', 'GET'], [':scheme', 'https'], [':path', '/'], AUTHORITY]],
  ['a method in lower case', [[':method', 'connect'], AUTHORITY]],
  [
    'RFC 8441 extended CONNECT, which nobody announced',
    both([':protocol', 'x'], [':scheme', 'https'], [':path', '/']),
  ],
]

await t.test('§8 a malformed request is answered 400, and the session goes on', async t => {
  const probe = await probeServer(t, { onConnect: () => t.fail('no request') })
  const { peer, session } = probe
  let streamId = -1
  for (const [what, list] of MALFORMED)
    for (const flags of [0, FLAG.endStream]) {
      streamId += 2
      peer.headers(streamId, list, flags)
      t.equal(await peer.status(streamId), 400, flags ? `${what}, ended` : what)
    }
  await peer.pong()
  t.notOk(session.isClosed)
  t.equal(session.openStreams, 0)
})

await t.test(
  '§8.1 a refusal ends the stream, and asks for no more of what the client still sends',
  async t => {
    const { peer, session } = await probeServer(t, { onConnect: request => request.respond(401) })
    peer.connect(1, TARGET).send(data(1, Buffer.alloc(1000)))
    const { flags } = await peer.frame(({ type }) => type === FRAME.headers)
    t.ok(flags & FLAG.endStream, 'no content follows')
    t.equal(await peer.resetCode(1), CODE.noError)
    peer.headers(3, both(), FLAG.endStream)
    t.equal(await peer.status(3), 401)
    await peer.pong()
    const resets = peer.frames.filter(({ type, streamId }) => type === FRAME.rstStream && streamId === 3)
    t.strictSame(resets, [], 'the client had ended by itself')
    t.equal(session.openStreams, 0)
  },
)

await t.test('§8.1 a request that is given up before its answer is not answered', async t => {
  const { peer, requests } = await probeServer(t, { onConnect: () => undefined })
  peer.connect(1, TARGET).send(rst(1, CODE.cancel))
  await peer.pong()
  const since = peer.frames.length
  requests[0]!.respond(200)
  requests[0]!.respond(503)
  await peer.pong()
  t.strictSame(
    peer.frames.slice(since).filter(({ streamId }) => streamId === 1),
    [],
  )
})

await t.test('§8.1 a request is answered once', async t => {
  const { peer, requests } = await probeServer(t, { onConnect: () => undefined })
  peer.connect(1, TARGET)
  await peer.pong()
  requests[0]!.respond(200)
  requests[0]!.respond(503)
  await peer.pong()
  t.equal(await peer.status(1), 200)
  t.equal(peer.frames.filter(({ type }) => type === FRAME.headers).length, 1)
})

await t.test(
  '§8.5 a client may end its side with the request: the tunnel is half-closed from the start',
  async t => {
    const received: Receiver[] = []
    const { peer, requests } = await probeServer(t, { onConnect: request => received.push(accept(request)) })
    peer.headers(1, both(), FLAG.endStream)
    t.equal(await peer.status(1), 200)
    t.equal(await received[0]!.ended, 'end')
    requests[0]!.tunnel.write(Buffer.from('answer'))
    requests[0]!.tunnel.end()
    await peer.frame(({ type, flags }) => type === FRAME.data && (flags & FLAG.endStream) !== 0)
  },
)

await t.test('§8.3.2 what is no answer resets the stream, and the session goes on', async t => {
  const lists: [what: string, list: HeaderList][] = [
    ['no status', [['x', 'y']]],
    ['no fields', []],
    ['a status that is empty', [[':status', '']]],
    ['a word', [[':status', 'ok']]],
    ['two digits', [[':status', '20']]],
    ['four digits', [[':status', '2000']]],
    ['a status below 100', [[':status', '099']]],
    ['a status above 599', [[':status', '600']]],
    ['a negative one', [[':status', '-200']]],
    ['one with its sign', [[':status', '+200']]],
    ['one with an exponent', [[':status', '2e2']]],
    ['one in hexadecimal', [[':status', '0xc8']]],
    ['one with a fraction', [[':status', '200.0']]],
    ['one with a leading zero', [[':status', '0200']]],
    ['§8.6 101, which HTTP/2 does not have', [[':status', '101']]],
    [
      'a pseudo-header of requests',
      [
        [':status', '200'],
        [':method', 'CONNECT'],
      ],
    ],
    [
      'a pseudo-header that nobody defined',
      [
        [':status', '200'],
        [':x', 'y'],
      ],
    ],
    [
      '§8.2.2 a field of the connection',
      [
        [':status', '200'],
        ['connection', 'close'],
      ],
    ],
    [
      'a status twice',
      [
        [':status', '200'],
        [':status', '200'],
      ],
    ],
    [
      'a status after another field',
      [
        ['x', 'y'],
        [':status', '200'],
      ],
    ],
    [
      'a name in upper case',
      [
        [':status', '200'],
        ['X', 'y'],
      ],
    ],
    [
      'a line feed in a value',
      [
        [':status', '200'],
        ['x', 'a\nb'],
      ],
    ],
  ]
  for (const [what, list] of lists) {
    const probe = await inState(t, 'client', 'asked')
    probe.peer.headers(1, list)
    t.equal(await verdict(probe, probe.since), 'stream error PROTOCOL_ERROR', what)
  }
})

await t.test('§8.1 an exchange in the wrong order resets the stream', async t => {
  const sends: [what: string, send: (peer: RawPeer) => unknown][] = [
    ['DATA before the answer', peer => peer.send(data(1, Buffer.from('early')))],
    [
      'DATA after an informational answer',
      peer => peer.headers(1, [[':status', '103']]).send(data(1, Buffer.from('early'))),
    ],
    [
      'an informational answer that ends the stream',
      peer => peer.headers(1, [[':status', '103']], FLAG.endStream),
    ],
  ]
  for (const [what, send] of sends) {
    const probe = await inState(t, 'client', 'asked')
    send(probe.peer)
    t.equal(await verdict(probe, probe.since), 'stream error PROTOCOL_ERROR', what)
  }
})

await t.test('§8.1 any number of informational answers may come before the real one', async t => {
  const { session, peer } = await probeClient(t)
  const opening = session.connect(TARGET, [])
  await peer.frame(({ type }) => type === FRAME.headers)
  for (const status of ['100', '103', '199', '103']) peer.headers(1, [[':status', status]])
  peer.headers(1, [
    [':status', '200'],
    ['baggage', 'a=b'],
  ])
  const { response } = await opening
  t.equal(response.status, 200)
  t.equal(response.headers.get('baggage'), 'a=b')
})

for (const status of [201, 204, 301, 401, 503, 599])
  await t.test(`§8.5 an answer ${status} is no tunnel: told with its fields, the stream is over`, async t => {
    for (const flags of [FLAG.endStream, 0]) {
      const { session, peer } = await probeClient(t)
      const opening = session.connect(TARGET, [])
      await peer.frame(({ type }) => type === FRAME.headers)
      peer.headers(
        1,
        [
          [':status', String(status)],
          ['culvert-error', 'ECONNREFUSED'],
        ],
        flags,
      )
      const { response } = await opening
      t.equal(response.status, status)
      t.equal(response.headers.get('culvert-error'), 'ECONNREFUSED')
      if (!flags) t.equal(await peer.resetCode(1), CODE.cancel, 'the rest is not wanted')
      await peer.pong()
      t.equal(session.openStreams, 0)
      t.notOk(session.isClosed)
    }
  })

await t.test('§8.5 200 with END_STREAM is a tunnel whose far side has nothing to say', async t => {
  const { session, peer } = await probeClient(t)
  const opening = session.connect(TARGET, [])
  await peer.frame(({ type }) => type === FRAME.headers)
  peer.headers(1, [[':status', '200']], FLAG.endStream)
  const { tunnel } = await opening
  t.equal(await new Receiver(tunnel).ended, 'end')
  tunnel.write(Buffer.from('may still speak'))
  tunnel.end()
  await peer.frame(({ type, flags }) => type === FRAME.data && (flags & FLAG.endStream) !== 0)
})

await t.test('§8.5 our CONNECT carries method and authority first, and no scheme, path or end', async t => {
  const { session, peer } = await probeClient(t)
  session.connect(TARGET, [['forwarded', 'for="10.0.0.2:5"']]).catch(() => undefined)
  const { payload, flags } = await peer.frame(({ type }) => type === FRAME.headers)
  t.equal(flags, FLAG.endHeaders)
  t.equal(payload.toString('latin1').match(/CONNECT/g)?.length, 1)
  t.notMatch(payload.toString('latin1'), /https|\//)
  await peer.pong()
  t.strictSame(
    peer.frames.filter(({ type }) => type === FRAME.data),
    [],
    'and no byte before the answer',
  )
})

await t.test('§4.3 a header block that cannot be read ends the session, wanted or not', async t => {
  const blocks: [what: string, block: string][] = [
    ['RFC 7541 §6.1 index 0', '80'],
    ['RFC 7541 §2.3.3 an index past both tables', 'fe'],
    ['RFC 7541 §5.1 an integer without end', 'ffffffffffffffffffff'],
    ['RFC 7541 §5.1 an integer cut off', 'ff'],
    ['RFC 7541 §5.2 a string longer than the block', '40057a'],
    ['RFC 7541 §5.2 a length of 2^28', '007fffffff7f'],
    ['RFC 7541 §5.2 padding of zeroes', '40817801'],
    ['RFC 7541 §5.2 padding of eight bits', '408219ff01'],
    ['RFC 7541 §5.2 the end-of-string symbol', '4084ffffffff01'],
    ['RFC 7541 §6.3 a table larger than allowed', '3fe21f'],
    ['RFC 7541 §4.2 a table size after a field', '8220'],
  ]
  for (const role of ['server', 'client'] as const)
    for (const state of ['asked', 'open', 'ended both ways', 'reset by us'] as const)
      for (const [what, block] of blocks) {
        const probe = await inState(t, role, state)
        probe.peer.send(frame(FRAME.headers, FLAG.endHeaders, 1, Buffer.from(block, 'hex')))
        const expected = 'connection error COMPRESSION_ERROR'
        t.equal(await verdict(probe, probe.since), expected, `${what}, to our ${role}, ${state}`)
      }
})
