import { once } from 'node:events'
import { createSecureContext } from 'node:tls'
import t, { type Test } from 'tap'
import { TlsSocket } from '../../../agent/io/tls-socket.ts'
import { openssl } from '../../../agent/sys/openssl.ts'
import { TlsContext, type TlsMaterial } from '../../../agent/sys/tls-context.ts'
import { BareEnd, fdPair, settled } from '../../helpers/io.ts'
import { createRoot } from '../../helpers/test-pki.ts'
import {
  material,
  nodeOptions,
  ours,
  securedPair,
  Sink,
  theirs,
  withNode,
  type Side,
} from '../../helpers/tls-ends.ts'

const SIDES = ['client', 'server'] as const
const HOUR_MS = 3_600_000
// Types of TLS extensions.
const SUPPORTED_VERSIONS = 43
const COMPRESS_CERTIFICATE = 27
const stranger = await createRoot('Root of somebody else')

t.afterEach(() => {
  t.equal(
    openssl.ERR_get_error(),
    0,
    'no connection leaves an error behind that another could take for its own',
  )
})

/** A connection that goes on while others fail. */
async function bystander(t: Test): Promise<() => Promise<void>> {
  const { client, server, atClient, atServer } = await securedPair(t)
  let said = ''
  return async () => {
    said += 'fine'
    client.write(Buffer.from('fine'), 4)
    server.write(Buffer.from('fine'), 4)
    await atServer.until(() => atServer.text === said)
    await atClient.until(() => atClient.text === said)
  }
}

const BAD: readonly [what: string, make: () => Promise<TlsMaterial>, code: string][] = [
  ['expired', () => material('late', { notAfterMs: Date.now() - HOUR_MS }), 'CERT_HAS_EXPIRED'],
  ['not valid yet', () => material('early', { notBeforeMs: Date.now() + HOUR_MS }), 'CERT_NOT_YET_VALID'],
  [
    'under a root that is not ours',
    () => material('strange', {}, stranger),
    'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  ],
  [
    'under a root that is not ours, which it brings along',
    async () => {
      const own = await material('strange', {}, stranger)
      return { ...own, chain: own.chain + stranger.pem }
    },
    'SELF_SIGNED_CERT_IN_CHAIN',
  ],
]

for (const side of SIDES)
  for (const [what, make, code] of BAD)
    await t.test(`as ${side} it refuses a certificate that is ${what}`, async t => {
      const isFine = await bystander(t)
      const { own, raw } = await withNode(t, side, nodeOptions(await make()))
      await t.rejects(own.secured, { name: 'TlsFailure', code, isAboutCertificate: true, isSilent: false })
      t.ok(own.isClosed)
      await once(raw, 'close')
      await isFine()
    })

await t.test('as client it hears that the server refuses its certificate', async t => {
  const [near, far] = await fdPair()
  const client = new TlsSocket(near, new TlsContext(await material('strange', {}, stranger)), 'client')
  const server = new TlsSocket(far, ours, 'server')
  t.teardown(() => client.destroy())
  await client.secured // in TLS 1.3 the client is done first
  const sink = new Sink()
  client.start(sink)
  await t.rejects(server.secured, { code: 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY' })
  await sink.until(() => sink.closings.length > 0)
  t.match(sink.closings, [{ code: 'ERR_SSL_TLSV1_ALERT_UNKNOWN_CA' }])
})

await t.test('as server it refuses a client without a certificate', async t => {
  const { own } = await withNode(t, 'server', {
    ...nodeOptions(theirs),
    secureContext: createSecureContext({ ca: theirs.roots }),
  })
  await t.rejects(own.secured, {
    code: 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE',
    isAboutCertificate: false,
  })
})

for (const side of SIDES)
  await t.test(`as ${side} it refuses TLS 1.2`, async t => {
    const { key, chain, roots } = theirs
    const { own } = await withNode(t, side, {
      ...nodeOptions(theirs),
      secureContext: createSecureContext({ key, cert: chain, ca: roots, maxVersion: 'TLSv1.2' }),
    })
    await t.rejects(own.secured, { code: /^ERR_SSL_(UNSUPPORTED_PROTOCOL|TLSV1_ALERT_PROTOCOL_VERSION)$/ })
  })

await t.test('as server it refuses another protocol than HTTP/2', async t => {
  const { own, node } = await withNode(t, 'server', { ...nodeOptions(theirs), ALPNProtocols: ['http/1.1'] })
  const told = once(node, 'error')
  await t.rejects(own.secured, { code: 'ERR_SSL_NO_APPLICATION_PROTOCOL' })
  t.match(await told, [{ code: 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL' }])
})

for (const side of SIDES)
  await t.test(`as ${side} it says so when the peer named no protocol`, async t => {
    const { ALPNProtocols: _, ...options } = nodeOptions(theirs)
    const { own } = await withNode(t, side, options)
    await own.secured
    t.equal(own.alpn(), '')
  })

await t.test('as server it takes HTTP/2 wherever in the list it stands', async t => {
  const { own } = await withNode(t, 'server', {
    ...nodeOptions(theirs),
    ALPNProtocols: ['h3', 'http/1.1', 'h2', 'x'.repeat(255)],
  })
  await own.secured
  t.equal(own.alpn(), 'h2')
})

/** Names of so many bytes, in one certificate. */
const names = (bytes: number) =>
  Array.from({ length: bytes / 200 }, (_, at) => ({
    type: 'dns' as const,
    value: `${at}.${'a'.repeat(60)}.${'b'.repeat(60)}.${'c'.repeat(60)}`.slice(0, 196),
  }))

for (const side of SIDES) {
  await t.test(`as ${side} it takes a certificate of 90 KiB, and sends one`, async t => {
    const large = await material('large', { names: names(90_000) })
    const { own, node } = await withNode(t, side, nodeOptions(large), new TlsContext(large))
    const done = once(node, side === 'server' ? 'secureConnect' : 'secure')
    await Promise.all([own.secured, done])
    t.ok(own.peerCertificate()!.raw.length > 85_000)
    t.ok(node.getPeerCertificate().raw.length > 85_000)
  })

  await t.test(`as ${side} it does not take more than 100 KiB`, async t => {
    const { own } = await withNode(t, side, nodeOptions(await material('huge', { names: names(140_000) })))
    await t.rejects(own.secured, { code: 'ERR_SSL_EXCESSIVE_MESSAGE_SIZE' })
  })
}

const bare = async (t: Test, side: Side): Promise<{ socket: TlsSocket; end: BareEnd }> => {
  const [near, far] = await fdPair()
  const socket = new TlsSocket(near, ours, side)
  t.teardown(() => socket.destroy())
  return { socket, end: new BareEnd(t, far) }
}

for (const side of SIDES) {
  await t.test(`as ${side} it tells a peer that leaves without a word from one that had begun`, async t => {
    const silent = await bare(t, side)
    silent.end.close()
    await t.rejects(silent.socket.secured, {
      code: side === 'server' ? 'CLOSED' : /^(CLOSED|ECONNRESET|EPIPE)$/,
      isSilent: true,
    })
    const begun = await bare(t, side)
    begun.end.send(Buffer.from([22, 3, 1, 2, 0, 1]))
    begun.end.end()
    await t.rejects(begun.socket.secured, { code: 'CLOSED', isSilent: false })
  })

  await t.test(`as ${side} it names a reset in the handshake`, async t => {
    const { socket, end } = await bare(t, side)
    await settled()
    end.reset()
    await t.rejects(socket.secured, { code: 'ECONNRESET', isSilent: true })
    t.ok(socket.isClosed)
  })

  await t.test(`as ${side} it takes a handshake byte by byte`, async t => {
    const { socket, end } = await bare(t, side)
    const [near, far] = await fdPair()
    const other = new TlsSocket(near, ours, side === 'server' ? 'client' : 'server')
    t.teardown(() => other.destroy())
    const between = new BareEnd(t, far)
    const passing = new AbortController()
    const both = Promise.all([socket.secured, other.secured]).finally(() => passing.abort())
    for (let passed = 0; !passing.signal.aborted; passed++) {
      const toSocket = between.receive(7)
      const toOther = end.receive(7)
      if (toSocket?.length) end.send(toSocket)
      if (toOther?.length) between.send(toOther)
      if (passed % 8 === 0) await new Promise(resolve => setImmediate(resolve))
    }
    await both
    t.equal(socket.alpn(), 'h2')
  })
}

await t.test('as client it does not ask for a compressed certificate', async t => {
  const { end } = await bare(t, 'client')
  await settled()
  const hello = end.receive(4096)!
  const extensions = extensionsOf(hello)
  t.ok(extensions.includes(SUPPORTED_VERSIONS), 'they are read')
  t.notOk(extensions.includes(COMPRESS_CERTIFICATE), 'RFC 8879')
})

/** Types of the extensions of a ClientHello that is whole in one record (RFC 8446 §4.1.2). */
function extensionsOf(record: Buffer): number[] {
  let at = 5 + 4 + 2 + 32
  at += 1 + record.readUInt8(at) // session id
  at += 2 + record.readUInt16BE(at) // cipher suites
  at += 1 + record.readUInt8(at) // compression methods
  const end = at + 2 + record.readUInt16BE(at)
  at += 2
  const types: number[] = []
  while (at < end) {
    types.push(record.readUInt16BE(at))
    at += 4 + record.readUInt16BE(at + 2)
  }
  return types
}

await t.test('a handshake that is given up is told as such', async t => {
  const { socket, end } = await bare(t, 'server')
  end.send(Buffer.from([22, 3, 1]))
  await settled()
  socket.destroy()
  socket.destroy()
  await t.rejects(socket.secured, { code: 'CLOSED', message: 'given up', isSilent: false })
})

await t.test('what is established does not wait for the handshakes that have come before', async t => {
  const { end: first } = await bare(t, 'client')
  await settled()
  const hello = first.receive(4096)!
  const strangers = await Promise.all(Array.from({ length: 20 }, () => bare(t, 'server')))
  const { client, atServer } = await securedPair(t)
  let answered = 0
  const isAnswered = ({ end }: (typeof strangers)[0]) => (end.receive(4096)?.length ?? 0) > 0
  for (const { end } of strangers) end.send(hello)
  client.write(Buffer.from('hello'), 5)
  await atServer.until(() => atServer.text === 'hello')
  answered += strangers.filter(isAnswered).length
  t.ok(answered <= 2, `${answered} handshakes went before`)
  while (answered < strangers.length) {
    await new Promise(resolve => setImmediate(resolve))
    answered += strangers.filter(isAnswered).length
  }
})

await t.test('fifty at once, half of which fail, do not mix up', async t => {
  const isFine = await bystander(t)
  const expired = nodeOptions(await material('late', { notAfterMs: Date.now() - HOUR_MS }))
  const good = nodeOptions(theirs)
  const ends = await Promise.all(
    Array.from({ length: 50 }, (_, at) =>
      withNode(t, at % 4 < 2 ? 'client' : 'server', at % 2 ? expired : good),
    ),
  )
  const results = await Promise.allSettled(ends.map(({ own }) => own.secured))
  t.strictSame(
    results.map(({ status }) => status),
    ends.map((_, at) => (at % 2 ? 'rejected' : 'fulfilled')),
  )
  await isFine()
})
