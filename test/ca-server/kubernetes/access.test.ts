import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { openAccess, type ApiAccess } from '../../../ca-server/kubernetes/access.ts'
import { ApiClient } from '../../../ca-server/kubernetes/api-client.ts'
import { ApiServer, refuse } from '../../helpers/api-server.ts'
import { temporaryDirectory } from '../../helpers/ca-server.ts'
import { createRoot, issueServer } from '../../helpers/test-pki.ts'

const LIMITS = { silenceMs: 5000, maxBytes: 1_000_000 }
const root = await createRoot('cluster')
const server = await issueServer(root)

/** Takes one token, which the test may change. */
async function startServer(t: Test): Promise<{ api: ApiServer; accept: (token: string) => void }> {
  const api = await ApiServer.start(t, server)
  let wanted = 'one'
  api.faults.add(({ authorization }, response) => {
    if (authorization === `Bearer ${wanted}`) return false
    refuse(response, 401, {})
    return true
  })
  return { api, accept: token => void (wanted = token) }
}

function clientOf(t: Test, access: ApiAccess): () => Promise<unknown> {
  const client = new ApiClient(access)
  t.teardown(() => client.close())
  return () => client.get('/api/v1/pods', {}, LIMITS, new AbortController().signal)
}

function account(t: Test): { directory: string; write: (name: string, text: string) => void } {
  const directory = temporaryDirectory(t)
  const write = (name: string, text: string): void => writeFileSync(join(directory, name), text)
  write('ca.crt', root.pem)
  write('token', 'one\n')
  return { directory, write }
}

await t.test("a pod's service account: when its token is refused it is read again", async t => {
  const { api, accept } = await startServer(t)
  const { directory, write } = account(t)
  const access = await openAccess({
    kubeconfig: undefined,
    host: '127.0.0.1',
    port: api.port,
    accountDirectory: directory,
  })
  const get = clientOf(t, access)
  t.match(await get(), { kind: 'PodList' })
  accept('two')
  await t.rejects(get(), { name: 'ApiError', status: 401 })
  await t.rejects(get(), { name: 'ApiError', status: 401 }, 'the file has not changed')
  write('token', 'two\n')
  t.match(await get(), { kind: 'PodList' })
  accept('three')
  rmSync(join(directory, 'token'))
  await t.rejects(get(), { name: 'ApiError', status: 401 })
  await t.rejects(get(), { name: 'ApiError', status: 401 }, 'a file that is gone leaves what was read')
})

await t.test('a server that the cluster did not certify gets no token', async t => {
  const { api } = await startServer(t)
  const { directory, write } = account(t)
  write('ca.crt', (await createRoot('another')).pem)
  const options = { kubeconfig: undefined, host: '127.0.0.1', port: api.port, accountDirectory: directory }
  await t.rejects(clientOf(t, await openAccess(options))(), { name: 'NoAnswerError', code: 'KUBERNETES' })
  t.equal(api.requests.length, 0)
})

await t.test('what is missing in a pod is said', async t => {
  const { directory, write } = account(t)
  const options = { kubeconfig: undefined, host: undefined, port: 443, accountDirectory: directory }
  await t.rejects(openAccess(options), { code: 'CONFIG', hint: /KUBECONFIG/ })
  await t.rejects(openAccess({ ...options, host: 'no host' }), { code: 'CONFIG' })
  write('token', ' \n')
  await t.rejects(openAccess({ ...options, host: '::1' }), { code: 'CONFIG', cause: { message: /is empty/ } })
  rmSync(directory, { recursive: true })
  await t.rejects(openAccess({ ...options, host: '::1' }), { code: 'CONFIG' })
  mkdirSync(directory)
})

/** A kubeconfig as kubectl has them. */
function kubeconfig(cluster: object, user: object): string {
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'here',
    contexts: [{ name: 'here', context: { cluster: 'c', user: 'u' } }],
    clusters: [{ name: 'c', cluster }],
    users: [{ name: 'u', user }],
  })
}

await t.test('a kubeconfig: its token, its program, and again when they are refused', async t => {
  const { api, accept } = await startServer(t)
  const directory = temporaryDirectory(t)
  const file = (name: string, text: string): string => {
    writeFileSync(join(directory, name), text, { mode: 0o700 })
    return join(directory, name)
  }
  const at = { host: undefined, port: 443, accountDirectory: '/none' }
  const cluster = { server: `https://localhost:${api.port}`, 'certificate-authority': 'ca.crt' }
  file('ca.crt', root.pem)
  const path = file('config', kubeconfig(cluster, { token: 'one' }))
  const get = clientOf(t, await openAccess({ ...at, kubeconfig: path }))
  t.match(await get(), { kind: 'PodList' })
  accept('two')
  await t.rejects(get(), { name: 'ApiError', status: 401 })
  file('config', kubeconfig(cluster, { token: 'two' }))
  t.match(await get(), { kind: 'PodList' })

  const answer = {
    apiVersion: 'client.authentication.k8s.io/v1',
    kind: 'ExecCredential',
    status: { token: 'two' },
  }
  const program = file('login', `#!/bin/sh\necho '${JSON.stringify(answer)}'\n`)
  const exec = { apiVersion: answer.apiVersion, command: program, interactiveMode: 'Never' }
  const other = file('other', kubeconfig(cluster, { exec }))
  t.match(await clientOf(t, await openAccess({ ...at, kubeconfig: `${other}:` }))(), { kind: 'PodList' })
})

await t.test('a kubeconfig that is not usable is refused without quoting it', async t => {
  const directory = temporaryDirectory(t)
  const path = join(directory, 'config')
  const refusal = async (text: string): Promise<string> => {
    writeFileSync(path, text)
    try {
      await openAccess({ kubeconfig: path, host: undefined, port: 443, accountDirectory: '/none' })
      return ''
    } catch (err) {
      t.match(err, { code: 'CONFIG' })
      return (err as Error).message
    }
  }
  const https = { server: 'https://10.0.0.1' }
  t.match(
    await refusal(kubeconfig({ server: 'ftp://x' }, {})),
    /server 'ftp:\/\/x' is not an http or https URL/,
  )
  t.match(await refusal(kubeconfig({ ...https, 'insecure-skip-tls-verify': true }, {})), /does not verify/)
  t.match(await refusal('clusters: []\nusers: []\ncontexts: []\n'), /names no cluster/)
  t.match(await refusal(kubeconfig(https, { exec: { command: '/none', apiVersion: 'x' } })), /ENOENT/)
  const secret = await refusal('users:\n- token: s3cret\n  : [')
  t.match(secret, /is not usable: it is not YAML/)
  t.notMatch(secret, 's3cret')
  rmSync(path)
  t.match(await refusal(''), /is not usable/)
})
