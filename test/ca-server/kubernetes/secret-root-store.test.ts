import { createPrivateKey, X509Certificate } from 'node:crypto'
import t, { type Test } from 'tap'
import { Authority } from '../../../ca-server/authority/authority.ts'
import { SecretRootStore } from '../../../ca-server/kubernetes/secret-root-store.ts'
import { quietLog, type Line } from '../../helpers/quiet-log.ts'
import { StandInApi, type ApiRequest, type Json } from '../../helpers/stand-in-api.ts'

const SECRET = '/api/v1/namespaces/culvert-system/secrets/culvert-ca-root'
const CONFIG_MAP = '/api/v1/namespaces/culvert-system/configmaps/culvert-root'

async function scene(t: Test) {
  const api = await StandInApi.start(t)
  const lines: Line[] = []
  const stopping = new AbortController()
  t.teardown(() => stopping.abort())
  const open = async (): Promise<Authority> => {
    const quiet = quietLog('trace')
    const store = new SecretRootStore({
      api: api.client(t),
      namespace: 'culvert-system',
      secret: 'culvert-ca-root',
      configMap: 'culvert-root',
      log: quiet.log,
      signal: stopping.signal,
    })
    try {
      return await Authority.open({
        trustDomain: 'cluster.local',
        source: { kind: 'kept-root', store },
        engine: 'node',
        log: quiet.log,
      })
    } finally {
      lines.push(...quiet.lines)
    }
  }
  const kept = (name: string): string => {
    const data = api.objects.get(SECRET)!['data'] as Record<string, string>
    return Buffer.from(data[name]!, 'base64').toString()
  }
  return { api, open, kept, lines, stopping }
}

await t.test('a root is made once, kept in a Secret, and opened from there', async t => {
  const { api, open, kept, lines } = await scene(t)
  const first = await open()
  t.match(api.objects.get(SECRET), { kind: 'Secret', type: 'kubernetes.io/tls' })
  t.equal(kept('tls.crt'), first.roots[0])
  t.ok(new X509Certificate(kept('tls.crt')).checkPrivateKey(createPrivateKey(kept('tls.key'))))
  const again = await open()
  t.strictSame(again.roots, first.roots)
  t.strictSame(
    lines.map(({ msg }) => msg),
    ['root made', 'root opened'],
  )
  t.notMatch(JSON.stringify(lines), /PRIVATE KEY|LS0tLS/, 'and nothing of the key in the log')
})

await t.test('replicas that start at once end up with one root', async t => {
  const { api, open } = await scene(t)
  const asked: (() => void)[] = []
  // All of them are told that there is none before any of them creates it.
  api.fault = ({ method, path }: ApiRequest) =>
    method === 'GET' && path === SECRET && asked.length < 3
      ? new Promise(resolve => {
          asked.push(() => resolve({ status: 404 }))
          if (asked.length === 3) for (const answer of asked) answer()
        })
      : undefined
  const all = await Promise.all([open(), open(), open()])
  t.equal(api.asked('POST', '/secrets').length, 3)
  for (const authority of all) t.strictSame(authority.roots, all[0].roots)
})

await t.test('a root that was published and is lost is no first start', async t => {
  const { api, open } = await scene(t)
  const { roots } = await open()
  api.put(CONFIG_MAP, { metadata: {}, data: { 'root-cert.pem': roots[0] } })
  const secret = api.objects.get(SECRET)!
  api.objects.delete(SECRET)
  await t.rejects(open(), {
    code: 'PKI',
    message: /published in ConfigMap culvert-system\/culvert-root, but the Secret .* is gone/,
    hint: /restore/,
  })
  t.equal(api.objects.has(SECRET), false)
  api.put(SECRET, secret)
  t.strictSame((await open()).roots, roots)
})

await t.test('one that another replica has made and published meanwhile is found', async t => {
  const { api, open } = await scene(t)
  const { roots } = await open()
  api.put(CONFIG_MAP, { metadata: {}, data: { 'root-cert.pem': roots[0] } })
  let asked = 0
  api.fault = ({ path }) => (path === SECRET && asked++ === 0 ? { status: 404 } : undefined)
  t.strictSame((await open()).roots, roots)
})

await t.test('what is in the Secret and cannot be used is an error, never replaced', async t => {
  const { api, open } = await scene(t)
  await open()
  const secret = api.objects.get(SECRET)!
  const data = secret['data'] as Json
  for (const [broken, message] of [
    [{ 'tls.key': data['tls.key'] }, /there is a key, but no tls\.crt/],
    [
      { ...data, 'tls.key': Buffer.from('no key').toString('base64') },
      /tls\.key of Secret .* is not a private key/,
    ],
    [
      { ...data, 'tls.crt': Buffer.from('none').toString('base64') },
      /tls\.crt of Secret .* is not a certificate/,
    ],
  ] as const) {
    api.put(SECRET, { ...secret, data: broken })
    await t.rejects(open(), { code: 'PKI', message })
    t.strictSame(api.objects.get(SECRET)!['data'], broken)
  }
})

await t.test('an API server that is away, or has not given the role yet, is waited for', async t => {
  const { api, open, lines } = await scene(t)
  const faults = [{ status: 403 }, { status: 503 }, 'cut'] as const
  let at = 0
  api.fault = () => faults[at++]
  await open()
  t.ok(
    lines.filter(({ msg }) => msg.startsWith('cannot read /api/v1/namespaces/culvert-system/secrets'))
      .length >= 2,
  )
})

await t.test('a start that is given up does not wait', async t => {
  const { api, open, stopping } = await scene(t)
  api.fault = () => {
    stopping.abort()
    return { status: 503 }
  }
  await t.rejects(open(), { code: 'KUBERNETES' })
})
