import { Code } from '@connectrpc/connect'
import t from 'tap'
import { PodState } from '../../../lib/proto/gen/culvert/v1/mesh_pb.js'
import { TestCa } from '../../helpers/ca-server.ts'
import { ENROLLED, kubeNamespace, kubeNode, kubePod } from '../../helpers/kube-world.ts'

const WORLD = [kubeNode('node-a', '10.99.0.1'), kubeNamespace('shop', ENROLLED), kubePod('client')]

await t.test('a report is taken from the node of the token', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const { reports } = ca.clients(t, await ca.issuer.token())
  const pods = [
    {
      podUid: 'uid-client',
      namespace: 'shop',
      name: 'client',
      state: PodState.ENROLLED,
      detail: 'as \u0007 seen\n',
    },
    { podUid: 'uid-nobody', state: PodState.PENDING },
  ]
  const answer = await reports.report({ instance: 'one', startedAtMs: 5n, full: true, pods })
  t.strictSame(answer.unknownPods, ['uid-nobody'])
  t.match(await ca.line({ msg: 'pod observed' }), {
    pod: 'shop/client',
    state: 'enrolled',
    detail: 'as   seen',
  })
  t.match(await ca.metrics(), 'culvert_ca_pods{state="enrolled"} 1')

  const { reports: fromB } = ca.clients(t, await ca.issuer.token({ node: 'node-b' }))
  t.strictSame((await fromB.report({ instance: 'b', pods: pods.slice(0, 1) })).unknownPods, ['uid-client'])
  await reports.report({ instance: 'zero', startedAtMs: 1n, full: true })
  await ca.line({ msg: 'report of an outdated agent ignored', instance: 'zero' })
  t.match(await ca.metrics(), 'culvert_ca_reports_total{result="outdated"} 1')
})

await t.test('a report that makes no sense is refused whole', async t => {
  const ca = await TestCa.start(t, { world: WORLD })
  const { reports } = ca.clients(t, await ca.issuer.token())
  const invalid = { code: Code.InvalidArgument }
  await t.rejects(reports.report({}), { ...invalid, rawMessage: 'instance must be a short text' })
  const good = { podUid: 'uid-client', state: PodState.ENROLLED }
  const cases = [
    [{ podUid: '' }, 'pods[1].pod_uid must be a short text'],
    [{ podUid: 'x', state: PodState.POD_STATE_UNSPECIFIED }, 'pods[1].state is not a state'],
  ] as const
  for (const [pod, rawMessage] of cases)
    await t.rejects(reports.report({ instance: 'a', pods: [good, pod] }), { ...invalid, rawMessage })
  const many = Array.from({ length: 10_001 }, (_, at) => ({ podUid: `${at}`, state: PodState.PENDING }))
  await t.rejects(reports.report({ instance: 'a', pods: many }), invalid)
  const refusals = Array.from({ length: 1001 }, () => ({ podUid: 'uid-client', reason: 'strict', count: 1 }))
  await t.rejects(reports.report({ instance: 'a', pods: [good], refusals }), invalid)
  t.notOk(ca.lines.some(({ msg }) => msg === 'pod observed'))
  const { reports: stranger } = ca.clients(t, await ca.issuer.token({ serviceAccount: 'default' }))
  await t.rejects(stranger.report({ instance: 'a' }), { code: Code.PermissionDenied })
})
