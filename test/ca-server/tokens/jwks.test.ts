import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as fc from 'fast-check'
import t, { type Test } from 'tap'
import { Refusal } from '../../../ca-server/refusal.ts'
import { bearerToken, requireTrustedAccount } from '../../../ca-server/tokens/authenticator.ts'
import { JwksAuthenticator } from '../../../ca-server/tokens/jwks.ts'
import { temporaryDirectory, TokenIssuer } from '../../helpers/ca-server.ts'
import { quietLog } from '../../helpers/quiet-log.ts'

async function opened(t: Test) {
  const file = join(temporaryDirectory(t), 'jwks.json')
  const issuer = await TokenIssuer.create('one')
  writeFileSync(file, issuer.jwks)
  const { log, lines } = quietLog()
  const open = () =>
    JwksAuthenticator.open({ file, issuer: 'https://culvert.test', audience: 'culvert-ca', log })
  return { file, issuer, lines, open, authenticator: await open() }
}

await t.test('node, pod and account come from the claims of the token', async t => {
  const { issuer, authenticator } = await opened(t)
  t.strictSame(await authenticator.authenticate(await issuer.token({ node: 'node-b' })), {
    node: 'node-b',
    podName: 'culvert-agent-node-b',
    podUid: 'uid-agent-node-b',
    namespace: 'culvert-system',
    serviceAccount: 'culvert-agent',
    audience: 'culvert-ca',
  })
})

await t.test('a token is refused for what is wrong with it', async t => {
  const { issuer, authenticator } = await opened(t)
  const cases: [reason: string, token: string][] = [
    ['token-expired', await issuer.token({ notBeforeIn: 3600 })],
    ['token-claims', await issuer.token({ claims: { 'kubernetes.io': null } })],
    ['token-claims', await issuer.token({ claims: { 'kubernetes.io': { namespace: 7 } } })],
    ['token-signature', await issuer.token({ kid: 'two' })],
    ['token-signature', `${(await issuer.token()).slice(0, -6)}AAAAAA`],
    ['token-malformed', 'a.b.c'],
    ['token-signature', `${Buffer.from('{"alg":"none"}').toString('base64url')}.e30.`],
  ]
  for (const [reason, token] of cases)
    await t.rejects(authenticator.authenticate(token), { name: 'Refusal', reason }, reason)
})

await t.test('a key that was published a moment ago is found without waiting', async t => {
  const { file, authenticator } = await opened(t)
  const next = await TokenIssuer.create('two')
  writeFileSync(file, next.jwks)
  t.match(await authenticator.authenticate(await next.token()), { node: 'node-a' })
})

await t.test('a key set that is none stops the start, and not what runs', async t => {
  const { file, issuer, lines, open, authenticator } = await opened(t)
  for (const text of ['', '{}', '{"keys":{}}', 'null']) {
    writeFileSync(file, text)
    await t.rejects(open(), { code: 'INPUT', message: /jwks.json is not a JSON Web Key Set/ })
  }
  await t.rejects(authenticator.authenticate(await issuer.token({ kid: 'x' })), {
    name: 'Refusal',
    reason: 'token-signature',
  })
  t.ok(lines.some(({ msg }) => msg.startsWith('new key set not usable')))
  t.match(await authenticator.authenticate(await issuer.token()), { node: 'node-a' }, 'the old keys stay')
})

await t.test('a private key in the key set is pointed out', async t => {
  const { file, issuer, lines, open } = await opened(t)
  const { keys } = JSON.parse(issuer.jwks) as { keys: object[] }
  writeFileSync(file, JSON.stringify({ keys: [{ ...keys[0], d: 'AAAA' }] }))
  await open()
  t.ok(lines.some(({ msg }) => msg.includes('holds a private key')))
})

await t.test('whatever the token, the answer is a caller or a refusal', async t => {
  const { authenticator } = await opened(t)
  await fc.assert(
    fc.asyncProperty(fc.oneof(fc.string(), fc.base64String()), async token => {
      const err = await authenticator.authenticate(token).catch((err: unknown) => err)
      return err instanceof Refusal
    }),
    { numRuns: 200 },
  )
})

await t.test('an authorization header is a bearer token or nothing', t => {
  t.equal(bearerToken('Bearer a.b-c_d~+/=='), 'a.b-c_d~+/==')
  t.equal(bearerToken('bearer x'), 'x')
  t.throws(() => bearerToken(null), { name: 'Refusal', reason: 'token-missing' })
  for (const text of ['x', 'Basic eA==', 'Bearer ', 'Bearer a b', `Bearer ${'a'.repeat(20_000)}`])
    t.throws(() => bearerToken(text), { name: 'Refusal', reason: 'token-malformed' })
  t.end()
})

await t.test('accounts are trusted by namespace and name', t => {
  const caller = { node: 'a', podName: '', podUid: '', namespace: 'x', serviceAccount: 'y', audience: '' }
  t.doesNotThrow(() => requireTrustedAccount(caller, new Set(['x/y'])))
  t.throws(() => requireTrustedAccount(caller, new Set(['y/x'])), {
    name: 'Refusal',
    reason: 'account-not-trusted',
  })
  t.end()
})
