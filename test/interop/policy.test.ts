/**
 * Authorization policies, enforced on either side: a ztunnel's against us, and ours against a ztunnel. Policies come from
 * where they would come from in a cluster with Istio's control plane: ztunnel's from its own file, ours from a discovery
 * server with an istiod's types and nothing of Culvert's. Certificates are our ca-server's all the same.
 */
import t from 'tap'
import { httpGet, podNamed } from '../../lab/demo/facts.ts'
import { Action, Scope } from '../../lib/proto/gen/istio/authorization_pb.js'
import { istioAgent } from '../helpers/istio-agent.ts'
import { Watch } from '../helpers/lab-facts.ts'
import { inPod, withZtunnel } from '../helpers/ztunnel.ts'

type Pod = Awaited<ReturnType<typeof podNamed>>

const NOT_7000 = {
  name: 'not-7000',
  namespace: 'shop',
  scope: Scope.NAMESPACE,
  action: Action.DENY,
  rules: [{ clauses: [{ matches: [{ destinationPorts: [7000] }] }] }],
}

await withZtunnel(t, {}, async (lab, start) => {
  const pods = await Promise.all(['client', 'zclient', 'zserver', 'guarded'].map(name => podNamed(lab, name)))
  const [, zclient, zserver, guarded] = pods as [Pod, Pod, Pod, Pod]

  await t.test("a ztunnel's policy refuses us: a reset for the application, `policy` in our log", async t => {
    const ztunnel = await start('zserver', { env: { XDS_ADDRESS: '', LOCAL_XDS: meshFile(pods) } })
    const log = new Watch(lab, 'node-a')
    t.equal((await httpGet(lab, 'client', `http://${zserver.ip}:8080/`)).pod, 'zserver')
    t.match(await inPod(lab, 'client', 'say', zserver.ip, 7000, ''), { how: 'reset', error: 'ECONNRESET' })
    const to = `${zserver.ip}:7000`
    t.match(await log.next({ from: 'client', to }), {
      reason: 'policy',
      error: 'peer answered 401',
      error_code: 'HTTP_401',
    })
    t.match(await ztunnel.connection('inbound', to), { error: /policy/ })
  })

  await t.test(
    'an istiod tells our agent of a policy: it refuses a ztunnel by 401, and nothing else',
    async t => {
      const agent = await istioAgent(t, lab, 'node-i', pods, NOT_7000)
      const ztunnel = await start('zclient')
      t.equal((await httpGet(lab, 'zclient', `http://${guarded.ip}:8080/`)).client.split(':')[0], zclient.ip)
      t.match(await inPod(lab, 'zclient', 'say', guarded.ip, 7000, ''), { how: 'end', received: '' })
      const to = `${guarded.ip}:7000`
      t.match(await ztunnel.connection('outbound', to), { error: /401 Unauthorized/ })
      const isTo = (target: string) => (line: Readonly<Record<string, unknown>>) =>
        line['scope'] === 'access' && line['dst.hbone_addr'] === target
      t.match(await agent.line('the refusal', isTo(to)), {
        reason: 'policy',
        'src.workload': 'zclient',
        error: 'denied by policy shop/not-7000',
      })
      t.match(await agent.line('the tunnel', isTo(`${guarded.ip}:8080`)), {
        reason: 'mtls',
        'src.identity': 'spiffe://cluster.local/ns/shop/sa/zclient',
        'dst.identity': 'spiffe://cluster.local/ns/shop/sa/guarded',
      })
      // The other way round: what is told in an istiod's types is enough to tunnel to.
      t.equal((await httpGet(lab, 'guarded', `http://${zserver.ip}:8080/`)).client.split(':')[0], guarded.ip)
      t.match(await agent.line('the tunnel', isTo(`${zserver.ip}:8080`)), {
        direction: 'outbound',
        reason: 'mtls',
      })
    },
  )
})

/** Pods as ztunnel's own file format has them, and a policy that nobody may call port 7000. */
function meshFile(pods: readonly Pod[]): string {
  return JSON.stringify({
    workloads: pods.map(({ name, ips, serviceAccount, node }) => ({
      uid: `Kubernetes//Pod/shop/${name}`,
      name,
      namespace: 'shop',
      serviceAccount,
      trustDomain: 'cluster.local',
      workloadIps: ips,
      protocol: 'HBONE',
      node,
      services: {},
    })),
    services: [],
    policies: [
      {
        name: 'not-7000',
        namespace: 'shop',
        scope: 'Namespace',
        action: 'Deny',
        dryRun: false,
        rules: [[[{ destinationPorts: [7000] }]]],
      },
    ],
  })
}
