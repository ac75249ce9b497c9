/**
 * Two replicas of the ca-server on a real cluster, the one of `KUBECONFIG`, with the rights that the manifests give
 * them and no others. They are processes of this machine that find their cluster as a pod does. Makes namespaces
 * there, culvert-system among them, and removes them.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Code } from '@connectrpc/connect'
import t from 'tap'
import { parse } from 'yaml'
import { PodState } from '../../lib/proto/gen/culvert/v1/mesh_pb.js'
import { TunnelProtocol } from '../../lib/proto/gen/istio/workload_pb.js'
import { makeCsr } from '../helpers/csr.ts'
import { ADDRESS, DeltaClient } from '../helpers/delta-client.ts'
import { Replica } from '../helpers/replica.ts'
import { canRestartApiServer, restartApiServer } from '../helpers/restart-api-server.ts'
import { Kubectl } from './kubectl.ts'

const KUBECONFIG = process.env['KUBECONFIG'] ?? ''
const SYSTEM = 'culvert-system'
const SHOP = `culvert-shop-${process.pid}`
const ACCESS = fileURLToPath(new URL('../../manifests/base/ca-server-access.yaml', import.meta.url))

const kubectl = new Kubectl(process.env)
const accountDirectory = mkdtempSync(join(tmpdir(), 'culvert-account-'))
t.teardown(async () => {
  rmSync(accountDirectory, { recursive: true, force: true })
  await kubectl.ok(['delete', 'namespace', SHOP, SYSTEM, '--wait=false'])
})

/** Tries until it holds. */
async function until(
  what: string,
  holds: () => Promise<boolean> | boolean,
  timeoutMs = 60_000,
): Promise<number> {
  const startMs = performance.now()
  while (!(await holds())) {
    if (performance.now() - startMs > timeoutMs) throw new Error(`${what}: not within ${timeoutMs} ms`)
    await sleep(50)
  }
  return performance.now() - startMs
}

const podYaml = (namespace: string, name: string, account: string, annotations: object = {}): string =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, annotations },
    spec: {
      serviceAccountName: account,
      terminationGracePeriodSeconds: 0,
      containers: [{ name: 'main', image: 'localhost/base:1', command: ['sleep', '100000'] }],
    },
  })

async function makePod(namespace: string, name: string, account = 'default', annotations: object = {}) {
  await kubectl.ok(['apply', '-f', '-'], podYaml(namespace, name, account, annotations))
}

const get = async (...args: string[]) => (await kubectl.ok(['get', ...args])).trim()
const statusOf = (pod: string): Promise<string> =>
  get('pod', '-n', SHOP, pod, '-o', 'jsonpath={.metadata.annotations.culvert\\.dev/status}')

/** The token that the kubelet would project into an agent's pod. */
const agentToken = (pod: string, audience = 'culvert-ca'): Promise<string> =>
  kubectl
    .ok([
      'create',
      'token',
      'culvert-agent',
      '-n',
      SYSTEM,
      '--audience',
      audience,
      '--bound-object-kind',
      'Pod',
      '--bound-object-name',
      pod,
    ])
    .then(token => token.trim())

const config = parse(readFileSync(KUBECONFIG, 'utf8')) as {
  clusters: { cluster: { server: string; 'certificate-authority-data': string } }[]
}
const { cluster } = config.clusters[0]!
await kubectl.ok(['create', 'namespace', SYSTEM])
await kubectl.ok(['apply', '-f', ACCESS])
await kubectl.ok(['create', 'serviceaccount', 'culvert-agent', '-n', SYSTEM])
await kubectl.ok(
  ['apply', '-f', '-'],
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: SHOP, annotations: { 'culvert.dev/mesh': 'enabled' } },
  }),
)
for (const namespace of [SHOP, SYSTEM])
  await until('the default account', async () => {
    const { code } = await kubectl.run(['get', 'serviceaccount', 'default', '-n', namespace])
    return code === 0
  })
await makePod(SYSTEM, 'agent', 'culvert-agent')
await makePod(SYSTEM, 'agent-gone', 'culvert-agent')
for (const name of ['one', 'two', 'silent', 'slow']) await makePod(SHOP, name)
await makePod(SHOP, 'odd', 'default', { 'culvert.dev/mtls': 'stern' })
await makePod(SHOP, 'meshed', 'default', { 'sidecar.istio.io/status': '{}' })
await kubectl.ok(['wait', 'pod', '--for=condition=Ready', '--all', '-n', SHOP, '--timeout=120s'])
await kubectl.ok(['wait', 'pod', '--for=condition=Ready', '--all', '-n', SYSTEM, '--timeout=120s'])
writeFileSync(
  join(accountDirectory, 'token'),
  await kubectl.ok(['create', 'token', 'culvert-ca', '-n', SYSTEM, '--duration', '1h']),
)
writeFileSync(
  join(accountDirectory, 'ca.crt'),
  Buffer.from(cluster['certificate-authority-data'], 'base64').toString(),
)

const apiServer = new URL(cluster.server)
const start = (name: string): Replica => new Replica(t, { name, apiServer, accountDirectory })
const isLeading = async (replica: Replica): Promise<boolean> =>
  (await replica.metric('culvert_ca_leader')) === 1

let a = start('ca-a')
let b = start('ca-b')
const token = await agentToken('agent')
const uidOf = async (pod: string): Promise<string> =>
  get('pod', '-n', SHOP, pod, '-o', 'jsonpath={.metadata.uid}')
const workload = (pod: string): string => `Kubernetes//Pod/${SHOP}/${pod}`

await t.test('replicas that start at once have one root, in the Secret, and publish it', async t => {
  await Promise.all([a.started(), b.started()])
  t.equal(a.roots, b.roots)
  const certificate = await get('secret', '-n', SYSTEM, 'culvert-ca-root', '-o', 'jsonpath={.data.tls\\.crt}')
  t.equal(Buffer.from(certificate, 'base64').toString(), a.roots)
  const published = (): Promise<string> =>
    get('configmap', '-n', SYSTEM, 'culvert-root', '-o', 'jsonpath={.data.root-cert\\.pem}')
  await until('published roots', async () => (await published()) === a.roots.trim())
  for (const replica of [a, b]) {
    await until('readiness', async () => (await replica.get('/healthz/ready')).status === 200)
    t.notMatch(JSON.stringify(replica.log.lines), /PRIVATE KEY|LS0tLS1CRUdJTi/)
  }
})

await t.test('one of them leads', async t => {
  await until('a leader', async () => (await isLeading(a)) !== (await isLeading(b)))
  t.match(
    await get('lease', '-n', SYSTEM, 'culvert-ca', '-o', 'jsonpath={.spec.holderIdentity}'),
    /^ca-[ab]_/,
  )
})

await t.test('an agent is who its projected token says, and nobody else is', async t => {
  const identity = `spiffe://cluster.local/ns/${SHOP}/sa/default`
  const csr = await makeCsr(identity)
  const metadata = { ImpersonatedIdentity: identity, PodUID: await uidOf('one') }
  const ask = (token: string) => a.clients(t, token).certificates.createCertificate({ csr, metadata })
  t.equal((await ask(token)).certChain.length, 2)
  await t.rejects(ask(await agentToken('agent', 'another')), { code: Code.Unauthenticated })
  const account = await kubectl.ok([
    'create',
    'token',
    'culvert-agent',
    '-n',
    SYSTEM,
    '--audience',
    'culvert-ca',
  ])
  await t.rejects(ask(account.trim()), { code: Code.PermissionDenied }, 'a token that is bound to no pod')
  const gone = await agentToken('agent-gone')
  await kubectl.ok(['delete', 'pod', '-n', SYSTEM, 'agent-gone'])
  await t.rejects(ask(gone), { code: Code.Unauthenticated }, 'a token of a pod that has gone')
  const [head, payload] = token.split('.') as [string, string]
  await t.rejects(ask(`${head}.${payload}.c2lnbmF0dXJl`), { code: Code.Unauthenticated }, 'a forged one')
  const reasons = a.log.lines.filter(({ msg }) => msg === 'call refused').map(({ reason }) => reason)
  t.strictSame(reasons, ['token-audience', 'token-without-node', 'token-rejected', 'token-rejected'])
})

const instance = { instance: 'test-agent', startedAtMs: BigInt(Date.now()) }
const podReport = async (name: string, state: PodState, detail = '') => ({
  podUid: await uidOf(name),
  namespace: SHOP,
  name,
  state,
  detail,
  observedAtMs: BigInt(Date.now()),
})

await t.test('what an agent tells one replica, agents of the other one hear', async t => {
  const { reports } = a.clients(t, token)
  const stream = new DeltaClient(b.clients(t, token))
  t.teardown(() => stream.close())
  stream.subscribe(ADDRESS)
  const tunnels = (): boolean => stream.workload(workload('one'))?.tunnelProtocol === TunnelProtocol.HBONE
  await stream.until(() => stream.workload(workload('one')) !== undefined)
  t.equal(tunnels(), false)
  const tookMs: number[] = []
  for (let round = 0; round < 10; round++) {
    for (const state of [PodState.ENROLLED, PodState.NOT_ENROLLED]) {
      const pods = [await podReport('one', state)]
      const startMs = performance.now()
      await reports.report({ ...instance, pods })
      await stream.until(() => tunnels() === (state === PodState.ENROLLED))
      tookMs.push(performance.now() - startMs)
      if (state === PodState.ENROLLED)
        t.match(await statusOf('one'), /^enrolled \(since 20..-..-..T..:..:..Z\)$/)
      else t.equal(await statusOf('one'), '')
    }
  }
  tookMs.sort((x, y) => x - y)
  t.comment(
    `from one replica to the other's agents: p50 ${tookMs[10]!.toFixed(1)} ms, max ${tookMs.at(-1)!.toFixed(1)} ms`,
  )
  await reports.report({
    ...instance,
    pods: [await podReport('one', PodState.ENROLLED), await podReport('two', PodState.ENROLLED)],
  })
  await stream.until(tunnels)
})

await t.test('a replica that starts again knows what was observed, before any agent has spoken', async t => {
  await a.kill('SIGTERM')
  a = start('ca-a')
  await a.started()
  await until('readiness', async () => (await a.get('/healthz/ready')).status === 200)
  const stream = new DeltaClient(a.clients(t, token))
  t.teardown(() => stream.close())
  stream.subscribe(ADDRESS)
  await stream.until(() => stream.workload(workload('one')) !== undefined)
  t.equal(stream.workload(workload('one'))?.tunnelProtocol, TunnelProtocol.HBONE)
  t.equal(stream.workload(workload('silent'))?.tunnelProtocol, TunnelProtocol.NONE)
})

await t.test('what a user writes into the annotation lasts until the agent speaks again', async t => {
  const { reports } = a.clients(t, token)
  await kubectl.ok(['annotate', 'pod', '-n', SHOP, 'two', '--overwrite', 'culvert.dev/status=a lie'])
  const pods = [await podReport('one', PodState.ENROLLED), await podReport('two', PodState.ENROLLED)]
  await reports.report({ ...instance, full: true, pods })
  await until('the truth', async () => (await statusOf('two')).startsWith('enrolled (since'))
  t.pass('the truth stands there again')
})

await t.test('a pod of which no agent says anything is told so, and so is who describes it', async t => {
  const { reports } = a.clients(t, token)
  await reports.report({
    ...instance,
    pods: [await podReport('slow', PodState.PENDING, 'waiting for a certificate')],
  })
  await until(
    'the status',
    async () => (await statusOf('silent')).startsWith('pending: no agent reports from node '),
    120_000,
  )
  const describe = (pod: string): Promise<string> => kubectl.ok(['describe', 'pod', '-n', SHOP, pod])
  for (const [pod, pattern] of [
    ['slow', /EnrolmentPending.*culvert\.dev\/ca-server.*waiting for a certificate/],
    ['silent', /EnrolmentPending.*no agent reports from node .*: culvert-system\/agent runs there/],
    ['odd', /AnnotationIgnored.*'stern' is not one of strict, permissive/],
    ['meshed', /OtherMesh.*pod has an Istio proxy: left alone/],
  ] as const)
    await until(`an Event of ${pod}`, async () => pattern.test(await describe(pod)))
  const refusal = { podUid: await uidOf('one'), reason: 'strict', peer: `${SHOP}/two`, port: 8080, count: 3 }
  const repair = {
    podUid: await uidOf('two'),
    what: 'IPv4 nat: a rule is gone',
    by: 'iptables (pid 42)',
    count: 1,
  }
  await reports.report({ ...instance, refusals: [refusal], repairs: [repair] })
  const refused = new RegExp(
    `PlaintextRefused.*x3.*refused were connections from ${SHOP}/two to port 8080 \\(3\\)`,
  )
  await until('an Event of the refusals', async () => refused.test(await describe('one')))
  await until('an Event of the repair', async () =>
    /RedirectionRepaired.*by iptables \(pid 42\)/.test(await describe('two')),
  )
  t.comment(await kubectl.ok(['get', 'events', '-n', SHOP, '--field-selector', 'type=Warning']))
  t.pass('all of them are told')
})

await t.test('roots that somebody edits are put right within a minute', async t => {
  const patch = JSON.stringify({ data: { 'root-cert.pem': 'a lie', mine: 'kept' } })
  await kubectl.ok(['patch', 'configmap', '-n', SYSTEM, 'culvert-root', '--type=merge', '-p', patch])
  const data = (key: string): Promise<string> =>
    get('configmap', '-n', SYSTEM, 'culvert-root', '-o', `jsonpath={.data.${key}}`)
  const tookMs = await until(
    'the roots',
    async () => (await data('root-cert\\.pem')) === a.roots.trim(),
    70_000,
  )
  t.equal(await data('mine'), 'kept')
  t.comment(`after ${Math.round(tookMs)} ms`)
})

await t.test('when the leader is killed another one leads; when it stops, at once', async t => {
  const transitions = async (): Promise<number> =>
    Number(await get('lease', '-n', SYSTEM, 'culvert-ca', '-o', 'jsonpath={.spec.leaseTransitions}'))
  const before = await transitions()
  const [leader, other] = (await isLeading(a)) ? [a, b] : [b, a]
  await leader.kill('SIGKILL')
  const killedMs = await until('another leader', () => isLeading(other), 30_000)
  const again = start('ca-c')
  await again.started()
  const stopped = other.kill('SIGTERM')
  const startMs = performance.now()
  const stoppedMs = await until('the next leader', () => isLeading(again), 30_000)
  await stopped
  t.comment(`after a kill ${Math.round(killedMs)} ms, after an orderly end ${Math.round(stoppedMs)} ms`)
  t.ok(killedMs < 20_000 && stoppedMs < 5000, `${performance.now() - startMs}`)
  t.equal(await transitions(), before + 2)
  a = again
  b = start('ca-d')
  await b.started()
})

const KIT = dirname(KUBECONFIG)
if (canRestartApiServer(KIT))
  await t.test('while the API server is away, agents that are known get certificates', async t => {
    const identity = `spiffe://cluster.local/ns/${SHOP}/sa/default`
    const csr = await makeCsr(identity)
    const metadata = { ImpersonatedIdentity: identity, PodUID: await uidOf('one') }
    const { certificates } = a.clients(t, token)
    await certificates.createCertificate({ csr, metadata })
    const uid = await uidOf('one')
    const restarted = restartApiServer(KIT)
    const { certificates: again } = a.clients(t, token)
    t.equal((await again.createCertificate({ csr, metadata })).certChain.length, 2)
    await restarted
    await until('the API server', async () => (await kubectl.run(['get', '--raw', '/readyz'])).code === 0)
    await until('a leader', async () => (await isLeading(a)) !== (await isLeading(b)))
    const { reports } = b.clients(t, token)
    await reports.report({
      ...instance,
      pods: [{ podUid: uid, state: PodState.DRIFTED, detail: 'after it', observedAtMs: BigInt(Date.now()) }],
    })
    await until('a status', async () => (await statusOf('one')).startsWith('drifted: after it (since'))
  })

await t.test('nothing was refused by the API server, and little memory is held', async t => {
  await sleep(15_000)
  for (const replica of [a, b]) {
    const forbidden = replica.log.lines.filter(line => JSON.stringify(line).includes('answered 403'))
    t.strictSame(forbidden, [])
    const { rss, own } = replica.memory()
    t.comment(
      `${replica.name}: ${(rss / 1e6).toFixed(1)} MB resident, ${(own / 1e6).toFixed(1)} MB of it its own`,
    )
    t.ok(rss < 129e6, 'less than what an istiod takes at rest')
  }
})
