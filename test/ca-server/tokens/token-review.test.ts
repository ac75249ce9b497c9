import t, { type Test } from 'tap'
import type { Caller } from '../../../ca-server/tokens/authenticator.ts'
import { TokenReviewAuthenticator } from '../../../ca-server/tokens/token-review.ts'
import { createMetrics } from '../../../ca-server/metrics.ts'
import { quietLog, type Line } from '../../helpers/quiet-log.ts'
import { StandInApi, type Json } from '../../helpers/stand-in-api.ts'

const PATH = '/apis/authentication.k8s.io/v1/tokenreviews'
let lastToken = 0

/** A token in form: nobody here checks signatures but the stand-in, by what it is told. */
function token(claims: Json = {}): string {
  const seconds = Math.floor(Date.now() / 1000)
  const part = (value: Json) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const payload = { aud: ['culvert-ca'], exp: seconds + 3600, jti: `${++lastToken}`, ...claims }
  return `${part({ alg: 'RS256' })}.${part(payload)}.c2lnbmF0dXJl`
}

function accepted(extra: Json = {}, more: Json = {}): Json {
  const user = {
    username: 'system:serviceaccount:culvert-system:culvert-agent',
    extra: {
      'authentication.kubernetes.io/node-name': ['node-a'],
      'authentication.kubernetes.io/pod-name': ['agent-1'],
      'authentication.kubernetes.io/pod-uid': ['uid-1'],
      ...extra,
    },
  }
  return { status: { authenticated: true, audiences: ['culvert-ca'], user, ...more } }
}

const REFUSED = {
  status: {
    authenticated: false,
    error: '[invalid bearer token, service account token has been invalidated]',
  },
}

interface Scene {
  api: StandInApi
  clock: { nowMs: number }
  lines: Line[]
  authenticate: (token: string) => Promise<Caller>
  reviews: () => number
  answer: (body: Json) => void
}

async function scene(t: Test, mostKept?: number): Promise<Scene> {
  const api = await StandInApi.start(t)
  const clock = { nowMs: 0 }
  const { log, lines } = quietLog()
  const stopping = new AbortController()
  t.teardown(() => stopping.abort())
  const authenticator = new TokenReviewAuthenticator({
    api: api.client(t),
    audience: 'culvert-ca',
    nodeOfPod: (uid, namespace, account) =>
      uid === 'uid-old' && `${namespace}/${account}` === 'culvert-system/culvert-agent'
        ? 'node-old'
        : undefined,
    metrics: createMetrics(),
    log,
    signal: stopping.signal,
    nowMs: () => clock.nowMs,
    ...(mostKept !== undefined && { mostKept }),
  })
  const answer = (body: Json): void => {
    api.fault = () => ({ status: 201, body })
  }
  answer(accepted())
  return {
    api,
    clock,
    lines,
    authenticate: token => authenticator.authenticate(token),
    reviews: () => api.requests.length,
    answer,
  }
}

await t.test('who calls is what the API server says of the token, for our audience', async t => {
  const { api, authenticate } = await scene(t)
  const asked = token()
  t.strictSame(await authenticate(asked), {
    node: 'node-a',
    podName: 'agent-1',
    podUid: 'uid-1',
    namespace: 'culvert-system',
    serviceAccount: 'culvert-agent',
    audience: 'culvert-ca',
  })
  t.strictSame(api.requests, [
    {
      method: 'POST',
      path: PATH,
      body: {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenReview',
        spec: { token: asked, audiences: ['culvert-ca'] },
      },
    },
  ])
})

await t.test('where the review names no node, the token does, or the pod that it belongs to', async t => {
  const { authenticate, answer } = await scene(t)
  const without = { 'authentication.kubernetes.io/node-name': [] }
  answer(accepted(without))
  t.match(await authenticate(token({ 'kubernetes.io': { node: { name: 'node-b' } } })), { node: 'node-b' })
  answer(accepted({ ...without, 'authentication.kubernetes.io/pod-uid': ['uid-old'] }))
  t.match(await authenticate(token()), { node: 'node-old', podUid: 'uid-old' })
  answer(accepted({ ...without, 'authentication.kubernetes.io/pod-uid': ['uid-elsewhere'] }))
  t.match(await authenticate(token()), { node: undefined })
})

await t.test('what the API server does not vouch for is refused, each for its own reason', async t => {
  const { authenticate, answer } = await scene(t)
  for (const [reason, body] of [
    ['token-rejected', REFUSED],
    ['token-rejected', {}],
    ['token-audience', accepted({}, { audiences: [] })],
    ['token-audience', accepted({}, { audiences: ['https://kubernetes.default.svc'] })],
    ['token-audience', accepted({}, { audiences: undefined })],
    ['token-claims', accepted({}, { user: { username: 'alice' } })],
    ['token-claims', accepted({}, { user: { username: 'system:node:node-a' } })],
  ] as const) {
    answer(body)
    await t.rejects(authenticate(token()), { name: 'Refusal', reason }, JSON.stringify(body))
  }
})

await t.test('a token that says itself that it is no good is not asked about', async t => {
  const { authenticate, reviews } = await scene(t)
  for (const [reason, text] of [
    ['token-malformed', 'opaque'],
    ['token-malformed', 'a.b.c'],
    ['token-malformed', `a.${Buffer.from('[]').toString('base64url')}.c`],
    ['token-malformed', 'a.bnVsbA.c'],
    ['token-audience', token({ aud: ['https://kubernetes.default.svc'] })],
    ['token-audience', token({ aud: undefined })],
    ['token-expired', token({ exp: Math.floor(Date.now() / 1000) - 120 })],
    ['token-claims', token({ exp: undefined })],
  ] as const)
    await t.rejects(authenticate(text), { name: 'Refusal', reason }, text)
  t.equal(reviews(), 0)
  await authenticate(token({ aud: 'culvert-ca' }))
  t.equal(reviews(), 1)
})

await t.test('a good token is asked about once a minute, and not beyond its end', async t => {
  const { authenticate, reviews, clock } = await scene(t)
  const long = token()
  await authenticate(long)
  clock.nowMs += 59_000
  await authenticate(long)
  t.equal(reviews(), 1)
  clock.nowMs += 2000
  await authenticate(long)
  t.equal(reviews(), 2)

  const short = token({ exp: Math.floor(Date.now() / 1000) + 30 })
  await authenticate(short)
  clock.nowMs += 31_000
  await authenticate(short)
  t.equal(reviews(), 4)
})

await t.test('a refusal is kept for some seconds only', async t => {
  const { authenticate, reviews, clock, answer } = await scene(t)
  const asked = token()
  answer(REFUSED)
  await t.rejects(authenticate(asked), { name: 'Refusal', reason: 'token-rejected' })
  clock.nowMs += 4000
  await t.rejects(authenticate(asked), { name: 'Refusal', reason: 'token-rejected' })
  t.equal(reviews(), 1)
  clock.nowMs += 2000
  answer(accepted())
  t.match(await authenticate(asked), { node: 'node-a' })
})

await t.test('calls with one token at the same time are one question', async t => {
  const { authenticate, reviews } = await scene(t)
  const asked = token()
  const callers = await Promise.all(Array.from({ length: 20 }, () => authenticate(asked)))
  t.equal(reviews(), 1)
  t.ok(callers.every(({ node }) => node === 'node-a'))
})

await t.test(
  'while the API server is away, a known token stays good for five minutes and a new one must wait',
  async t => {
    const { api, authenticate, clock, lines } = await scene(t)
    const known = token()
    await authenticate(known)
    for (const fault of ['cut', { status: 503 }, { status: 429 }, { status: 403 }] as const) {
      api.fault = () => fault
      clock.nowMs += 61_000
      t.match(await authenticate(known), { node: 'node-a' }, JSON.stringify(fault))
      await t.rejects(authenticate(token()), { name: 'Refusal', reason: 'token-unchecked' })
    }
    const warnings = lines.filter(({ msg }) => msg.startsWith('tokens cannot be checked'))
    t.equal(warnings.length, 1, 'it is said once')
    clock.nowMs += 57_000
    await t.rejects(
      authenticate(known),
      { name: 'Refusal', reason: 'token-unchecked' },
      'five minutes are over',
    )
    api.fault = () => ({ status: 201, body: accepted() })
    t.match(await authenticate(known), { node: 'node-a' })
    t.equal(lines.at(-1)?.msg, 'tokens can be checked again')
  },
)

await t.test(
  'while it is away, a known token waits for nobody, and is asked about in the background',
  async t => {
    const { api, authenticate, clock } = await scene(t)
    const known = token()
    await authenticate(known)
    api.fault = () => 'cut'
    clock.nowMs += 61_000
    await authenticate(known)
    api.fault = () => 'hang'
    clock.nowMs += 6000
    const before = api.requests.length
    await authenticate(known)
    await authenticate(known)
    await api.until(() => api.requests.length > before)
    t.equal(api.requests.length, before + 1)
  },
)

await t.test('a known token that is refused at last was good for the last time', async t => {
  const { authenticate, clock, answer } = await scene(t)
  const known = token()
  await authenticate(known)
  answer(REFUSED)
  clock.nowMs += 61_000
  await t.rejects(authenticate(known), { name: 'Refusal', reason: 'token-rejected' })
})

await t.test(
  'strangers cannot have more than some tokens checked at once, nor drive out who is known',
  async t => {
    const { api, authenticate, clock } = await scene(t, 3)
    const known = token()
    await authenticate(known)
    const held: (() => void)[] = []
    api.fault = ({ body }) =>
      new Promise(resolve => {
        const isKnown = (body['spec'] as Json)['token'] === known
        if (isKnown) resolve({ status: 201, body: accepted() })
        else held.push(() => resolve({ status: 201, body: REFUSED }))
      })
    const strangers = Array.from({ length: 100 }, () => authenticate(token()))
    const outcomes = Promise.allSettled(strangers)
    await api.until(() => api.requests.length === 65)
    clock.nowMs += 61_000
    t.match(await authenticate(known), { node: 'node-a' }, 'who is known is checked beside them')
    for (const answer of held) answer()
    const reasons = (await outcomes).map(outcome =>
      outcome.status === 'rejected' ? (outcome.reason as { reason: string }).reason : 'let in',
    )
    t.equal(reasons.filter(reason => reason === 'token-unchecked').length, 36)
    t.equal(reasons.filter(reason => reason === 'token-rejected').length, 64)
    const before = api.requests.length
    await authenticate(known)
    t.equal(api.requests.length, before, 'and is still known')
  },
)
