import { once, EventEmitter } from 'node:events'
import { X509Certificate } from 'node:crypto'
import t, { type Test } from 'tap'
import {
  CaError,
  CaClient,
  type CertificateRequest,
  type CertificateSource,
} from '../../../agent/identity/ca-client.ts'
import { verifyChain } from '../../../agent/identity/chain.ts'
import { Channel } from '../../../agent/identity/channel.ts'
import { createKeyAndRequest } from '../../../agent/identity/csr.ts'
import {
  CertificateManager,
  type CertificateManagerOptions,
  type FetchResult,
} from '../../../agent/identity/manager.ts'
import type { PodCertificate } from '../../../agent/worker/messages.ts'
import { FakeClock } from '../../helpers/fake-clock.ts'
import { quietLog } from '../../helpers/quiet-log.ts'
import { StandInCa } from '../../helpers/stand-in-ca.ts'
import { createRoot, issueLeaf } from '../../helpers/test-pki.ts'

const root = await createRoot('root')
const never = new AbortController().signal
const identityOf = (name: string) => `spiffe://cluster.local/ns/shop/sa/${name}`

/** Issues in this process, at the fake clock's time, and can be told to fail or to wait. */
class LocalSource implements CertificateSource {
  readonly clock: FakeClock
  readonly requests: CertificateRequest[] = []
  lifeMs = 20_000
  backdatedMs = 120_000
  failure: CaError | undefined
  gate: Promise<void> | undefined

  constructor(clock: FakeClock) {
    this.clock = clock
  }

  async issue(request: CertificateRequest) {
    this.requests.push(request)
    await this.gate
    if (request.signal.aborted) throw new CaError('cancelled', 'cancelled')
    if (this.failure) throw this.failure
    const { key, publicKey } = await createKeyAndRequest(request.identity)
    const nowMs = this.clock.now()
    const leaf = await issueLeaf(root, new Uint8Array(publicKey), {
      identity: request.identity,
      notBeforeMs: nowMs - this.backdatedMs,
      notAfterMs: nowMs + this.lifeMs,
    })
    const { identity, bundle } = request
    return { key, ...verifyChain({ answer: [leaf, root.pem], identity, publicKey, bundle, nowMs }) }
  }
}

interface World {
  manager: CertificateManager
  source: LocalSource
  clock: FakeClock
  lines: ReturnType<typeof quietLog>['lines']
  handed: { uid: string; certificate: PodCertificate }[]
  fetches: FetchResult[]
  /** Ends when another `count` requests have ended. */
  settled: (count?: number) => Promise<void>
}

function world(t: Test, options: Partial<CertificateManagerOptions> = {}): World {
  // Whole seconds: that is how certificates tell time.
  const clock = new FakeClock(Math.floor(Date.now() / 1000) * 1000)
  const source = new LocalSource(clock)
  const { log, lines } = quietLog()
  const fetches: FetchResult[] = []
  const events = new EventEmitter()
  const manager = new CertificateManager({
    source,
    log,
    clock,
    random: () => 0.5,
    onFetch: result => {
      fetches.push(result)
      events.emit('fetch')
    },
    ...options,
  })
  const handed: World['handed'] = []
  manager.onCertificate((uid, certificate) => handed.push({ uid, certificate }))
  t.teardown(() => manager.close())
  const settled = async (count = 1) => {
    const upTo = seen + count
    while (fetches.length < upTo) await once(events, 'fetch')
    seen = upTo
    await new Promise(setImmediate)
  }
  let seen = 0
  return { manager, source, clock, lines, handed, fetches, settled }
}

await t.test(
  'a held pod gets a certificate at once, renewed at half of its life under a new key',
  async t => {
    const { manager, source, clock, handed, settled } = world(t)
    manager.hold({ uid: 'a', identity: identityOf('client') })
    t.match(manager.state('a'), { state: 'fetching', alarm: false })
    await manager.ready('a', never)
    await settled()
    t.equal(handed.length, 1)
    t.match(manager.state('a'), { state: 'valid', failures: 0, notAfterMs: clock.now() + 20_000 })
    t.equal(manager.state('a')?.nextAttemptMs, clock.now() + 10_000)
    clock.advance(9_999)
    t.equal(source.requests.length, 1)
    clock.advance(1)
    await settled()
    t.equal(handed.length, 2)
    t.not(handed[0]!.certificate.key, handed[1]!.certificate.key)
    t.equal(manager.certificate('a'), handed[1]!.certificate)
  },
)

await t.test('renewal is spread by a tenth of the half-life either way', async t => {
  for (const [random, atMs] of [
    [0, 9_000],
    [1, 11_000],
  ] as const) {
    const { manager, clock } = world(t, { random: () => random })
    manager.hold({ uid: 'a', identity: identityOf('client') })
    await manager.ready('a', never)
    t.equal(manager.state('a')?.nextAttemptMs, clock.now() + atMs)
  }
})

await t.test('a certificate that is dated further back than it lives is not renewed in a loop', async t => {
  const { manager, clock, source } = world(t)
  source.lifeMs = 20_000
  source.backdatedMs = 3_600_000
  manager.hold({ uid: 'a', identity: identityOf('client') })
  await manager.ready('a', never)
  t.equal(manager.state('a')?.nextAttemptMs, clock.now() + 10_000)
  t.equal(manager.state('a')?.alarm, false)
})

await t.test(
  'when renewal fails the certificate serves until its end, tried ever more often near it',
  async t => {
    const { manager, source, clock, handed, lines, settled, fetches } = world(t)
    manager.hold({ uid: 'a', identity: identityOf('client') })
    await settled()
    const first = manager.certificate('a')
    const endMs = manager.state('a')!.notAfterMs!
    source.failure = new CaError('refused', 'not for you')
    while (clock.now() < endMs) {
      const nextMs = manager.state('a')!.nextAttemptMs!
      const leftMs = endMs - clock.now()
      t.ok(
        fetches.length === 1 || nextMs - clock.now() <= Math.max(250, leftMs / 4),
        'never past a quarter of what is left',
      )
      clock.advance(nextMs - clock.now())
      await settled()
      t.equal(manager.certificate('a'), first, 'kept')
      if (clock.now() < endMs)
        t.match(manager.state('a'), { state: 'renewal-failing', lastError: 'not for you' })
    }
    t.match(manager.state('a'), { state: 'expired', alarm: true })
    t.ok(lines.some(line => line.level === 'error' && /expired/.test(line.msg)))
    const waiting = manager.ready('a', never)
    source.failure = undefined
    clock.advance(manager.state('a')!.nextAttemptMs! - clock.now())
    await waiting
    t.match(manager.state('a'), { state: 'valid', failures: 0, alarm: false, lastError: undefined })
    t.equal(handed.length, 2)
  },
)

await t.test('an alarm stands as soon as less than a quarter of the life is left', async t => {
  const { manager, source, clock, settled } = world(t)
  manager.hold({ uid: 'a', identity: identityOf('client') })
  await settled()
  source.gate = new Promise(() => undefined)
  clock.advance(15_000)
  t.equal(manager.state('a')?.alarm, false)
  clock.advance(1)
  t.equal(manager.state('a')?.alarm, true)
})

await t.test(
  'a pod without any certificate is tried again after 0.5 s, twice as long each time, 150 s at most',
  async t => {
    const { manager, source, clock, settled } = world(t)
    source.failure = new CaError('unavailable', 'nobody there')
    manager.hold({ uid: 'a', identity: identityOf('client') })
    const waits: number[] = []
    for (let at = 0; at < 11; at++) {
      await settled()
      const waitMs = manager.state('a')!.nextAttemptMs! - clock.now()
      waits.push(waitMs)
      clock.advance(waitMs)
    }
    t.strictSame(waits.slice(0, 4), [500, 1000, 2000, 4000])
    t.ok(Math.max(...waits) <= 150_000 && waits.at(-1)! > 100_000)
  },
)

await t.test('the first answer after an absence wakes every pod that waits for the service', async t => {
  const { manager, source, settled } = world(t)
  source.failure = new CaError('unavailable', 'nobody there')
  for (const uid of ['a', 'b', 'c']) manager.hold({ uid, identity: identityOf(uid) })
  await settled(3)
  source.failure = undefined
  manager.hold({ uid: 'd', identity: identityOf('d') })
  await Promise.all(['a', 'b', 'c', 'd'].map(uid => manager.ready(uid, never)))
  t.strictSame(
    manager.states().map(state => state.state),
    ['valid', 'valid', 'valid', 'valid'],
  )
})

await t.test('retryNow asks again for pods that found nobody, and leaves refusals to their wait', async t => {
  const { manager, source, settled } = world(t)
  source.failure = new CaError('refused', 'not for you')
  manager.hold({ uid: 'refused', identity: identityOf('refused') })
  await settled()
  source.failure = new CaError('timeout', 'no answer')
  manager.hold({ uid: 'away', identity: identityOf('away') })
  await settled()
  manager.retryNow()
  await settled()
  t.strictSame(
    source.requests.map(request => request.podUid),
    ['refused', 'away', 'away'],
  )
})

await t.test(
  'whoever was just being asked for when the ca-server came back does not wait for long again',
  async t => {
    const { manager, source, clock, settled } = world(t)
    source.failure = new CaError('unavailable', 'nobody there')
    manager.hold({ uid: 'a', identity: identityOf('a') })
    await settled()
    for (let round = 0; round < 6; round++) {
      clock.advance(manager.state('a')!.nextAttemptMs! - clock.now())
      await settled()
    }
    t.ok(manager.state('a')!.nextAttemptMs! - clock.now() > 30_000)
    const gate = Promise.withResolvers<void>()
    source.gate = gate.promise
    clock.advance(manager.state('a')!.nextAttemptMs! - clock.now())
    manager.retryNow()
    gate.resolve()
    await settled()
    t.equal(manager.state('a')!.nextAttemptMs, clock.now() + 500)
  },
)

await t.test('at most eight requests are under way; pods with nothing to show pass renewals', async t => {
  const { manager, source, clock, settled } = world(t)
  for (let at = 0; at < 20; at++) manager.hold({ uid: `old-${at}`, identity: identityOf('old') })
  t.equal(source.requests.length, 8)
  await settled(20)
  const gate = Promise.withResolvers<void>()
  source.gate = gate.promise
  source.requests.length = 0
  clock.advance(10_000)
  t.equal(source.requests.length, 6, 'renewals leave two places')
  manager.hold({ uid: 'new', identity: identityOf('new') })
  t.equal(source.requests.at(-1)?.podUid, 'new')
  gate.resolve()
  await settled(21)
})

await t.test('a short-lived certificate shortens the wait for an answer', async t => {
  const { manager, source, clock, settled } = world(t)
  manager.hold({ uid: 'a', identity: identityOf('client') })
  await settled()
  clock.advance(10_000)
  await settled()
  t.equal(source.requests[0]?.timeoutMs, 10_000)
  t.equal(Math.round(source.requests[1]!.timeoutMs!), 3333, 'a third of the ten seconds left')
})

await t.test('release cancels what is under way, forgets the key and rejects who waits', async t => {
  const { manager, source, clock, handed, settled } = world(t)
  const gate = Promise.withResolvers<void>()
  source.gate = gate.promise
  manager.hold({ uid: 'a', identity: identityOf('client') })
  const waiting = t.rejects(manager.ready('a', never), { code: 'CLOSED' })
  manager.release('a')
  await waiting
  t.ok(source.requests[0]?.signal.aborted)
  gate.resolve()
  await settled()
  t.strictSame(handed, [])
  t.equal(manager.state('a'), undefined)
  t.equal(manager.certificate('a'), undefined)
  t.equal(clock.timers, 0)
  await t.rejects(manager.ready('a', never), { code: 'CLOSED' })
})

await t.test('a pod that is released while it waits in line is never asked for', async t => {
  const { manager, source } = world(t, { concurrency: 1 })
  source.gate = new Promise(() => undefined)
  manager.hold({ uid: 'a', identity: identityOf('a') })
  manager.hold({ uid: 'b', identity: identityOf('b') })
  manager.release('b')
  t.strictSame(
    source.requests.map(request => request.podUid),
    ['a'],
  )
})

await t.test(
  'a certificate that arrives after its pod came back under another identity is not handed out',
  async t => {
    const { manager, source, handed, settled } = world(t)
    const gate = Promise.withResolvers<void>()
    source.gate = gate.promise
    manager.hold({ uid: 'a', identity: identityOf('before') })
    manager.hold({ uid: 'a', identity: identityOf('before') })
    t.equal(source.requests.length, 1, 'holding again changes nothing')
    manager.hold({ uid: 'a', identity: identityOf('after') })
    gate.resolve()
    await settled(2)
    t.equal(handed.length, 1)
    t.match(new X509Certificate(handed[0]!.certificate.chain).subjectAltName, /sa\/after$/)
  },
)

await t.test('waiting for a certificate ends when its signal aborts', async t => {
  const { manager, source } = world(t)
  source.gate = new Promise(() => undefined)
  manager.hold({ uid: 'a', identity: identityOf('client') })
  const cancel = new AbortController()
  const waiting = t.rejects(manager.ready('a', cancel.signal), { message: 'enough' })
  cancel.abort(new Error('enough'))
  await waiting
  await t.rejects(manager.ready('a', cancel.signal), { message: 'enough' })
})

await t.test(
  'the roots are those of the answer and of the bundle; a change is handed out, sameness is not',
  async t => {
    const { manager, handed, lines, settled } = world(t)
    const next = await createRoot('next')
    const rootsOf = (at: number) => handed[at]!.certificate.roots.match(/BEGIN CERTIFICATE/g)?.length
    manager.hold({ uid: 'a', identity: identityOf('client') })
    await settled()
    t.equal(rootsOf(0), 1)
    manager.setRoots([root.pem])
    t.equal(handed.length, 1, 'nothing new')
    manager.setRoots([next.pem, root.pem])
    t.equal(rootsOf(1), 2)
    t.equal(handed[1]!.certificate.key, handed[0]!.certificate.key)
    manager.setRoots([`${root.pem}${next.pem}`, root.pem])
    t.equal(handed.length, 2, 'another order is not a change')
    manager.setRoots(['garbage'])
    t.equal(handed.length, 2, 'a bundle that cannot be read changes nothing')
    t.ok(lines.some(line => line.level === 'warn' && /trust bundle/.test(line.msg)))
    manager.setRoots([])
    t.equal(rootsOf(2), 1)
  },
)

await t.test('keys are in no state and in no line of the log', async t => {
  const { manager, lines, handed, clock, source, settled } = world(t)
  manager.hold({ uid: 'a', identity: identityOf('client') })
  await settled()
  source.failure = new CaError('refused', 'not for you')
  clock.advance(10_000)
  await settled()
  const body = handed[0]!.certificate.key.split('\n')[1]!
  const shown = JSON.stringify([lines, manager.states()])
  t.notMatch(shown, /PRIVATE/)
  t.notOk(shown.includes(body))
})

await t.test('two-second certificates from a real service roll over without a gap', async t => {
  const ca = await StandInCa.start()
  t.teardown(() => ca.stop())
  ca.ttlSeconds = 2.9 // certificates count whole seconds: two at least
  const channel = new Channel({ url: ca.url, roots: () => ca.root.pem })
  const source = new CaClient({ channel, token: () => 'token', clusterId: 'Kubernetes', ttlSeconds: 2 })
  const events = new EventEmitter()
  const manager = new CertificateManager({ source, log: quietLog().log })
  t.teardown(() => {
    manager.close()
    channel.close()
  })
  const seen: PodCertificate[] = []
  manager.onCertificate((_, certificate) => {
    seen.push(certificate)
    events.emit('certificate')
  })
  manager.hold({ uid: 'a', identity: identityOf('client') })
  while (seen.length < 3) {
    await once(events, 'certificate')
    const before = seen.at(-2)
    if (before) t.ok(Date.now() < before.notAfterMs, 'the next one was there before the last one ended')
  }
  t.equal(new Set(seen.map(certificate => certificate.key)).size, 3)
})

await t.test('a service that stops and comes back is survived with a certificate in hand', async t => {
  const ca = await StandInCa.start()
  t.teardown(() => ca.stop())
  ca.ttlSeconds = 4
  const channel = new Channel({ url: ca.url, roots: () => ca.root.pem })
  const source = new CaClient({ channel, token: () => 'token', clusterId: 'Kubernetes' })
  const events = new EventEmitter()
  const manager = new CertificateManager({
    source,
    log: quietLog().log,
    onFetch: ({ outcome }) => events.emit(outcome),
  })
  t.teardown(() => {
    manager.close()
    channel.close()
  })
  manager.hold({ uid: 'a', identity: identityOf('client') })
  await manager.ready('a', never)
  await ca.stop()
  await once(events, 'unavailable')
  t.equal(manager.state('a')?.state, 'renewal-failing')
  await manager.ready('a', never)
  await ca.listen()
  await once(events, 'issued')
  await new Promise(setImmediate)
  t.equal(manager.state('a')?.state, 'valid')
})
