import t from 'tap'
import type { ConnectionRecord } from '../../../agent/worker/messages.ts'
import { ageText, planOf } from '../../../cli/cluster/upgrade.ts'

const NOW = 1_000_000_000

function record(more: Partial<ConnectionRecord>): ConnectionRecord {
  return {
    id: 1,
    podUid: 'uid',
    direction: 'outbound',
    reason: 'mtls',
    source: { ip: '10.0.0.1', port: 4000, namespace: 'shop', workload: 'client' },
    destination: { ip: '10.0.0.2', port: 5432, namespace: 'shop', workload: 'db' },
    bytesSent: 1000,
    bytesReceived: 500,
    openedAtMs: NOW - 600_000,
    ...more,
  }
}

const options = {
  drainMs: 295_000,
  olderThanMs: 295_000,
  nowMs: NOW,
  names: new Map([['uid', 'shop/client-1']]),
}

await t.test('a connection that both its agents know of is told once, by its owner', async t => {
  const plan = planOf(
    [
      { node: 'node-a', pod: 'a', value: [record({})] },
      {
        node: 'node-b',
        pod: 'b',
        value: [record({ direction: 'inbound', source: { ...record({}).source, port: 9999 } })],
      },
    ],
    options,
  )
  t.match(plan, {
    drainSeconds: 295,
    connections: 1,
    cut: [
      {
        node: 'node-a',
        owner: 'shop/client',
        pod: 'shop/client-1',
        peer: 'shop/db:5432',
        ageSeconds: 600,
        bytes: 1500,
      },
    ],
    unasked: [],
  })
})

await t.test('of a client that is nobody of ours, the server is the owner', async t => {
  const stranger = record({
    direction: 'inbound',
    reason: 'peer-external',
    source: { ip: '192.0.2.1', port: 1234 },
  })
  t.match(planOf([{ node: 'node-b', pod: 'b', value: [stranger] }], options).cut, [
    { owner: 'shop/db', peer: '192.0.2.1:1234', reason: 'peer-external' },
  ])
})

await t.test(
  'young ones may end by themselves; the oldest comes first; who does not answer is named',
  async t => {
    const young = record({ openedAtMs: NOW - 1000 })
    const old = record({ openedAtMs: NOW - 3_600_000, destination: { ip: '10.0.0.3', port: 80 } })
    const answers = [
      { node: 'node-a', pod: 'a', value: [young, record({}), old] },
      { node: 'node-b', pod: 'b', problem: 'away' },
    ]
    const plan = planOf(answers, options)
    t.strictSame(
      plan.cut.map(({ ageSeconds }) => ageSeconds),
      [3600, 600],
    )
    t.equal(plan.connections, 3)
    t.strictSame(plan.unasked, [{ node: 'node-b', why: 'away' }])
    t.equal(planOf(answers, { ...options, olderThanMs: 0 }).cut.length, 3)
  },
)

await t.test('ages are told in the two units that matter', async t => {
  t.strictSame([0, 42, 440, 3600, 18_720, 273_600].map(ageText), [
    '0s',
    '42s',
    '7m20s',
    '1h',
    '5h12m',
    '3d4h',
  ])
})
