import { once } from 'node:events'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { Code, ConnectError } from '@connectrpc/connect'
import t, { type Test } from 'tap'
import {
  CaClient,
  CaError,
  type CaClientOptions,
  type CertificateRequest,
} from '../../../agent/identity/ca-client.ts'
import { createKeyAndRequest } from '../../../agent/identity/csr.ts'
import { Channel, type ChannelOptions } from '../../../agent/identity/channel.ts'
import { StandInCa } from '../../helpers/stand-in-ca.ts'
import { createRoot } from '../../helpers/test-pki.ts'

const IDENTITY = 'spiffe://cluster.local/ns/shop/sa/client'
const TOKEN = 'header.payload.signature'

function request(more: Partial<CertificateRequest> = {}): CertificateRequest {
  return { podUid: 'pod-1', identity: IDENTITY, bundle: [], signal: new AbortController().signal, ...more }
}

function clientOf(
  t: Test,
  ca: StandInCa,
  more: Partial<ChannelOptions> = {},
  options: Partial<CaClientOptions> = {},
) {
  const channel = new Channel({ url: ca.url, roots: () => ca.root.pem, ...more })
  t.teardown(() => channel.close())
  return new CaClient({ channel, token: () => TOKEN, clusterId: 'Kubernetes', ...options })
}

async function startedCa(t: Test): Promise<StandInCa> {
  const ca = await StandInCa.start()
  t.teardown(() => ca.stop())
  return ca
}

/** The failure that a request ends with. */
async function failureOf(work: Promise<unknown>): Promise<CaError> {
  const thrown = await work.then(
    () => undefined,
    (err: unknown) => err,
  )
  if (!(thrown instanceof CaError)) throw new Error('there was no CaError', { cause: thrown })
  return thrown
}

await t.test('a certificate is asked for as the field asks, and the pod is named', async t => {
  const ca = await startedCa(t)
  const issued = await clientOf(t, ca, {}, { ttlSeconds: 20 }).issue(request())
  t.strictSame(ca.asked, [
    {
      identity: IDENTITY,
      podUid: 'pod-1',
      authorization: `Bearer ${TOKEN}`,
      clusterId: 'Kubernetes',
      validitySeconds: 20,
    },
  ])
  t.match(issued.key, /BEGIN PRIVATE KEY/)
  t.match(issued.chain, /BEGIN CERTIFICATE/)
  t.equal(issued.roots.length, 1)
})

await t.test('requests share one connection, and each reads the token anew', async t => {
  const ca = await startedCa(t)
  let reads = 0
  const client = clientOf(t, ca, {}, { token: async () => `token-${++reads}\n` })
  await Promise.all([client.issue(request()), client.issue(request()), client.issue(request())])
  await client.issue(request())
  t.equal(ca.connections, 1)
  t.strictSame(
    new Set(ca.asked.map(asked => asked.authorization)),
    new Set([1, 2, 3, 4].map(at => `Bearer token-${at}`)),
  )
})

await t.test('refusals, exhaustion and absence are told apart', async t => {
  const ca = await startedCa(t)
  const client = clientOf(t, ca)
  for (const [code, failure, errorCode] of [
    [Code.PermissionDenied, 'refused', 'DENIED'],
    [Code.Unauthenticated, 'refused', 'DENIED'],
    [Code.InvalidArgument, 'refused', 'DENIED'],
    [Code.ResourceExhausted, 'exhausted', 'CA'],
    [Code.Unavailable, 'unavailable', 'CA'],
    [Code.Internal, 'unavailable', 'CA'],
    [Code.Unimplemented, 'unavailable', 'CA'],
  ] as const) {
    ca.answer = async () => {
      throw new ConnectError('the reason\nof the server', code)
    }
    const error = await failureOf(client.issue(request()))
    t.match(error, { failure, code: errorCode }, Code[code])
    t.match(error.message, /the reason of the server/, 'on one line')
    t.notMatch(error.message, TOKEN)
  }
})

await t.test('answers that cannot be used are malformed, and say why', async t => {
  const ca = await startedCa(t)
  const client = clientOf(t, ca)
  const other = 'spiffe://cluster.local/ns/shop/sa/admin'
  const stranger = await createRoot('a stranger')
  const { csr } = await createKeyAndRequest(IDENTITY)
  const cases: [StandInCa['answer'], RegExp][] = [
    [async () => [], /without a certificate/],
    [(_, asked) => ca.issue(asked.csr, other), /not for spiffe:.*client/],
    [() => ca.issue(csr, IDENTITY), /another key/],
    [(_, asked) => ca.issue(asked.csr, IDENTITY, -10), /ended at/],
    [async (_, asked) => [(await ca.issue(asked.csr, IDENTITY))[0]!, stranger.pem], /any known root/],
    [async () => ['garbage'.repeat(1000)], /without a certificate/],
  ]
  for (const [answer, reason] of cases) {
    ca.answer = answer
    const error = await failureOf(client.issue(request()))
    t.match(error, { failure: 'malformed', code: 'PKI' }, String(reason))
    t.match(error.message, reason)
    t.notMatch(error.message, /PRIVATE KEY/)
  }
})

await t.test('a server that vanished and came back is found again by the next request', async t => {
  const ca = await startedCa(t)
  const client = clientOf(t, ca)
  await client.issue(request())
  await ca.stop()
  t.match(await failureOf(client.issue(request())), { failure: 'unavailable', code: 'CA' })
  await ca.listen()
  await client.issue(request())
  t.equal(ca.asked.length, 2)
})

await t.test('a server that another root vouches for is not talked to, and no token leaves', async t => {
  const ca = await startedCa(t)
  const stranger = await createRoot('a stranger')
  const error = await failureOf(clientOf(t, ca, { roots: () => stranger.pem }).issue(request()))
  t.match(error, { failure: 'unavailable', hint: /CA_ROOT_CA/ })
  t.strictSame(ca.asked, [])
})

await t.test('the roots are read for each connection: a replaced file heals without a restart', async t => {
  const ca = await startedCa(t)
  const stranger = await createRoot('a stranger')
  let roots = stranger.pem
  const client = clientOf(t, ca, { roots: () => roots })
  await failureOf(client.issue(request()))
  roots = ca.root.pem
  await client.issue(request())
  t.equal(ca.asked.length, 1)
})

await t.test('missing or empty roots and tokens are named and never replaced by defaults', async t => {
  const ca = await startedCa(t)
  const missing = () => {
    throw new Error('ENOENT: no such file')
  }
  t.match(
    (await failureOf(clientOf(t, ca, { roots: () => '' }).issue(request()))).message,
    /roots .* hold no certificate/,
  )
  t.match(
    (await failureOf(clientOf(t, ca, { roots: missing }).issue(request()))).message,
    /roots .* cannot be read/,
  )
  t.match(
    (await failureOf(clientOf(t, ca, {}, { token: () => ' \n' }).issue(request()))).message,
    /token is empty/,
  )
  t.match(
    (await failureOf(clientOf(t, ca, {}, { token: missing }).issue(request()))).message,
    /token cannot be read/,
  )
  t.throws(() => new Channel({ url: new URL('http://localhost:1'), roots: () => '' }), { code: 'CONFIG' })
})

await t.test(
  'a call that is not answered ends at its limit, and the next one takes a new connection',
  async t => {
    const ca = await startedCa(t)
    const client = clientOf(t, ca)
    const answer = ca.answer
    const held = Promise.withResolvers<string[]>()
    ca.answer = () => held.promise
    const [first, second] = await Promise.all([
      failureOf(client.issue(request({ timeoutMs: 100 }))),
      failureOf(client.issue(request({ timeoutMs: 150 }))),
    ])
    t.match(first, { failure: 'timeout', code: 'CA', message: /within 100 ms/ })
    t.match(second, { failure: 'timeout' })
    ca.answer = answer
    await client.issue(request())
    t.equal(ca.connections, 2, 'two calls that timed out on one connection cost one new one')
    held.resolve([])
  },
)

await t.test('a listener that never shakes hands is given up on', async t => {
  const sockets = new Set<Socket>()
  const server = createServer(socket => sockets.add(socket.on('error', () => undefined))).listen(
    0,
    '127.0.0.1',
  )
  await once(server, 'listening')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const url = new URL(`https://127.0.0.1:${(server.address() as AddressInfo).port}`)
  const root = await createRoot('any')
  const channel = new Channel({ url, roots: () => root.pem, connectTimeoutMs: 50 })
  const client = new CaClient({ channel, token: () => TOKEN, clusterId: 'Kubernetes' })
  const error = await failureOf(client.issue(request()))
  t.match(error, { failure: 'unavailable', message: /no TLS connection .* within 50 ms/ })

  const patient = new Channel({ url, roots: () => root.pem, connectTimeoutMs: 60_000 })
  t.teardown(() => patient.close())
  const limited = new CaClient({ channel: patient, token: () => TOKEN, clusterId: 'Kubernetes' })
  t.match(
    await failureOf(limited.issue(request({ timeoutMs: 50 }))),
    { failure: 'timeout' },
    'nor outlives the limit of the call',
  )
})

await t.test('a cancelled request ends at once', async t => {
  const ca = await startedCa(t)
  const client = clientOf(t, ca)
  const cancel = new AbortController()
  const held = Promise.withResolvers<string[]>()
  ca.answer = () => {
    cancel.abort()
    return held.promise
  }
  t.match(await failureOf(client.issue(request({ signal: cancel.signal }))), {
    failure: 'cancelled',
    code: 'CLOSED',
  })
  held.resolve([])
})

await t.test('the address of a server that has only an IP is checked too', async t => {
  const ca = await startedCa(t)
  const url = new URL(`https://127.0.0.1:${ca.url.port}`)
  await clientOf(t, ca, { url }).issue(request())
  const error = await failureOf(clientOf(t, ca, { url, serverName: 'elsewhere.example' }).issue(request()))
  t.match(error, { failure: 'unavailable' })
  t.equal(ca.asked.length, 1)
})
