import { randomBytes } from 'node:crypto'
import type { ConnectionOptions } from 'node:tls'
import t from 'tap'
import { PORT } from '../../agent/ports.ts'
import type { PodCertificate } from '../../agent/worker/messages.ts'
import { x509 } from '../helpers/csr.ts'
import { RawPeer } from '../helpers/raw-peer.ts'
import { createIntermediate, createRoot, issueLeaf, type Authority } from '../helpers/test-pki.ts'
import { certificateOf, closed, identityOf, Victim } from '../helpers/victim.ts'

const HOUR_MS = 3_600_000

await t.test('who is not of the mesh is turned away at the tunnel port, and the log says why', async t => {
  const victim = await Victim.start(t)
  const { root } = victim
  const elsewhere = await createRoot('elsewhere')
  const namesake = await createRoot('mesh')
  const lapsed = await createIntermediate(root, 'lapsed', undefined, Date.now() - 1000)
  const identity = identityOf('stranger')
  const now = Date.now()
  const member = await certificateOf(root, { identity })
  const chained = await certificateOf(lapsed, { identity })
  const cases: [what: string, options: ConnectionOptions, reason: string, error: RegExp][] = [
    ['no certificate', {}, 'tls', /did not return a certificate/],
    ['another root', use(await certificateOf(elsewhere, { identity })), 'tls', /not accepted: /],
    [
      'another root of the same name',
      use(await certificateOf(namesake, { identity })),
      'tls',
      /not accepted: /,
    ],
    [
      'an expired certificate',
      use(await certificateOf(root, { identity, notBeforeMs: now - HOUR_MS, notAfterMs: now - 1000 })),
      'tls',
      /not accepted: CERT_HAS_EXPIRED/,
    ],
    [
      'a certificate for later',
      use(await certificateOf(root, { identity, notBeforeMs: now + HOUR_MS })),
      'tls',
      /not accepted: CERT_NOT_YET_VALID/,
    ],
    [
      'an expired issuer',
      { key: chained.key, cert: chained.chain + lapsed.pem },
      'tls',
      /not accepted: CERT_HAS_EXPIRED/,
    ],
    ['a leaf that signs others', await belowLeaf(root), 'tls', /not accepted: /],
    [
      'another trust domain',
      use(await certificateOf(root, { identity: identityOf('stranger', 'elsewhere.org') })),
      'identity',
      /stranger is of trust domain 'elsewhere.org', ours is 'cluster.local'/,
    ],
    [
      'no SPIFFE ID',
      use(await certificateOf(root, { identity: 'https://cluster.local/' })),
      'identity',
      /presented no SPIFFE ID/,
    ],
    [
      'a SPIFFE ID of another shape',
      use(await certificateOf(root, { identity: 'spiffe://cluster.local/admin' })),
      'identity',
      /presented no SPIFFE ID/,
    ],
    ['another protocol', { ...use(member), ALPNProtocols: ['http/1.1'] }, 'tls', /no.*application protocol/i],
    ['TLS 1.2', { ...use(member), maxVersion: 'TLSv1.2' }, 'tls', /unsupported protocol/],
  ]
  for (const [what, options, reason, error] of cases) {
    const socket = await victim.tls(options).catch(() => undefined)
    if (socket) await closed(socket)
    const record = await victim.record(each => error.test(each.error ?? ''))
    t.match(record, { reason, direction: 'inbound', source: { ip: victim.stranger.ip } }, what)
    victim.records.length = 0
  }
  await victim.unharmed()
})

await t.test('no session is resumed: who comes again shows a certificate again', async t => {
  const victim = await Victim.start(t)
  const { key, chain } = await certificateOf(victim.root, { identity: identityOf('stranger') })
  const socket = await victim.tls({ key, cert: chain })
  socket.on('session', () => t.fail('a ticket'))
  t.equal(await new RawPeer(socket).hello().connect(1, `${victim.server.ip}:8080`).status(1), 200)
  t.equal(socket.getTLSTicket(), undefined)
  await victim.unharmed()
})

await t.test('bytes that are no TLS, and half a handshake, are turned away in time', async t => {
  const victim = await Victim.start(t, { patienceMs: 1000 })
  const hello = Buffer.from('160301020001000001fc0303', 'hex')
  const cases: [what: string, bytes: Buffer, error: RegExp][] = [
    ['HTTP', Buffer.from('GET / HTTP/1.1\r\nhost: server\r\n\r\n'), /http request/],
    [
      'random bytes',
      Buffer.concat([Buffer.of(0xff, 0xff, 0xff), randomBytes(10_000)]),
      /wrong version number/,
    ],
    ['what begins as an SSLv2 hello', Buffer.concat([Buffer.of(0xff, 0xff, 1), randomBytes(10_000)]), /./],
    ['half a hello, and silence', hello, /handshake timeout/],
    ['nothing at all', Buffer.alloc(0), /handshake timeout/],
    ['an alert', Buffer.from('15030300020228', 'hex'), /./],
  ]
  for (const [what, bytes, error] of cases) {
    const socket = await victim.tcp(victim.server.ip, PORT.hbone)
    socket.write(bytes)
    await closed(socket)
    const record = await victim.record(each => error.test(each.error ?? ''))
    t.match(record, { reason: 'tls', source: { ip: victim.stranger.ip } }, what)
    t.notMatch(record.error, /\n|\.c:\d/, 'said in words')
    victim.records.length = 0
  }
  await victim.unharmed()
})

await t.test('a crowd that keeps silent does not keep others out', async t => {
  const victim = await Victim.start(t)
  const before = await victim.measure()
  const crowd = []
  for (let round = 0; round < 13; round++)
    crowd.push(
      ...(await Promise.all(Array.from({ length: 100 }, () => victim.tcp(victim.server.ip, PORT.hbone)))),
    )
  // The oldest have given way by now; those still there are waited for no longer than anybody.
  const { descriptors } = await victim.measure()
  t.ok(descriptors - before.descriptors <= 1024, `${descriptors - before.descriptors} descriptors for 1300`)
  t.match(await victim.record(({ errorCode }) => errorCode === 'TOO_MANY_HANDSHAKES'), {
    reason: 'tls',
    error: /gave way: more than 1024 under way/,
  })
  const member = await victim.member()
  t.equal(member.alpnProtocol, 'h2', 'a member comes in meanwhile')
  await victim.unharmed()
  for (const socket of crowd) socket.resetAndDestroy()
  member.destroy()
  const after = await victim.settled(before.descriptors)
  t.equal(after.descriptors, before.descriptors)
})

function use({ key, chain }: PodCertificate): ConnectionOptions {
  return { key, cert: chain }
}

/** A leaf below a certificate that is an ordinary workload's, and no CA's. */
async function belowLeaf(root: Authority): Promise<ConnectionOptions> {
  const keys = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, [
    'sign',
    'verify',
  ])
  const spki = await crypto.subtle.exportKey('spki', keys.publicKey)
  const workload = await issueLeaf(root, spki, { identity: identityOf('server') })
  const issuer = { certificate: new x509.X509Certificate(workload), keys, pem: workload }
  const { key, chain } = await certificateOf(issuer, { identity: identityOf('stranger') })
  return { key, cert: chain + workload }
}
