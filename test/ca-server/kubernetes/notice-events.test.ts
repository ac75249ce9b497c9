import t from 'tap'
import type { Occurrence } from '../../../ca-server/kubernetes/event-recorder.ts'
import { tellNotices } from '../../../ca-server/kubernetes/notice-events.ts'
import type { Notices, RefusalNotice } from '../../../ca-server/reports/notices.ts'
import { World } from '../../../ca-server/world/world.ts'
import { kubePod } from '../../helpers/kube-world.ts'

const world = new World()
world.replaceAll([kubePod('one'), kubePod('far', { node: 'node-b' })])

function told(notices: Partial<Notices>): Occurrence[] {
  const told: Occurrence[] = []
  tellNotices(
    world,
    { tell: occurrence => told.push(occurrence) },
    {
      node: 'node-a',
      refusals: [],
      repairs: [],
      ...notices,
    },
  )
  return told
}

const refusal = (more: Partial<RefusalNotice>): RefusalNotice => ({
  podUid: 'uid-one',
  reason: 'strict',
  outbound: false,
  peer: 'shop/client',
  port: 8080,
  count: 1,
  ...more,
})

await t.test('refusals of a kind are one Event, with who called most', t => {
  const refusals = [
    refusal({}),
    refusal({ peer: '192.0.2.7', count: 5 }),
    refusal({ port: 9090, count: 2 }),
    refusal({ peer: 'others', port: 0, count: 3 }),
    refusal({ reason: 'policy' }),
    refusal({ outbound: true, peer: 'shop/server' }),
  ]
  t.match(told({ refusals }), [
    {
      regarding: { kind: 'Pod', namespace: 'shop', name: 'one', uid: 'uid-one' },
      reason: 'PlaintextRefused',
      note: 'this pod takes no plaintext; refused were connections from 192.0.2.7 to port 8080 (5), others (3), shop/client to port 9090 (2), and 1 more',
      count: 11,
    },
    {
      reason: 'ConnectionRefused',
      note: 'a policy does not allow connections from shop/client to port 8080 (1)',
    },
    {
      reason: 'PlaintextRefused',
      note: 'this pod sends no plaintext; refused were connections to shop/server to port 8080 (1)',
    },
  ])
  t.end()
})

await t.test('a repair says what was changed, and by whom if that is known', t => {
  const repair = { podUid: 'uid-one', what: 'IPv4 nat: a rule is gone', by: 'iptables (pid 42)', count: 3 }
  t.match(told({ repairs: [repair, { ...repair, by: '' }] }), [
    {
      reason: 'RedirectionRepaired',
      note: 'redirection was changed by iptables (pid 42) and put right: IPv4 nat: a rule is gone',
      count: 3,
    },
    { note: 'redirection was changed and put right: IPv4 nat: a rule is gone' },
  ])
  t.end()
})

await t.test('of pods of other nodes, and of what no agent says, there are no Events', t => {
  const nothing = told({
    refusals: [
      refusal({ podUid: 'uid-far' }),
      refusal({ podUid: 'uid-nobody' }),
      refusal({ reason: 'constructor' }),
      refusal({ reason: 'mtls' }),
    ],
    repairs: [{ podUid: 'uid-far', what: 'x', by: '', count: 1 }],
  })
  t.strictSame(nothing, [])
  t.end()
})
