import { execFileSync } from 'node:child_process'
import { networkInterfaces } from 'node:os'
import t from 'tap'
import { NodeAddresses } from '../../agent/pods/node-addresses.ts'
import { addressesIn, ownAddresses } from '../../agent/pods/verify.ts'
import { inNetns } from '../../agent/sys/netns.ts'
import { makePods, type TestPod } from '../helpers/pods.ts'
import { quietLog } from '../helpers/quiet-log.ts'

await t.test('a namespace is told by its addresses, without those that say nothing', async t => {
  const [pod] = makePods(t, ['pod']) as [TestPod]
  t.strictSame(addressesIn(pod.fd), [pod.ip, pod.ip6])
  t.strictSame(inNetns(pod.fd, ownAddresses), [pod.ip, pod.ip6])
  t.ok(
    Object.values(inNetns(pod.fd, () => networkInterfaces())).flat().length > 2,
    'the loopback has some, and each link one',
  )
})

await t.test('addresses that come and go are seen when they are read', async t => {
  const [pod] = makePods(t, ['pod']) as [TestPod]
  const addresses = new NodeAddresses(`/run/netns/${pod.netns}`, quietLog().log)
  t.strictSame(addresses.read(), [pod.ip, pod.ip6])
  execFileSync('ip', ['-n', pod.netns, 'addr', 'add', '10.88.0.1/24', 'dev', 'eth0'])
  t.strictSame(new Set(addresses.read()), new Set([pod.ip, pod.ip6, '10.88.0.1']))
})

await t.test('a node whose network cannot be looked at is complained about once', async t => {
  const { log, lines } = quietLog()
  const addresses = new NodeAddresses('/nowhere', log)
  t.strictSame(addresses.read(), [])
  t.strictSame(addresses.read(), [])
  t.match(lines, [{ level: 'warn', msg: /cannot read the node's addresses/ }])
  t.equal(lines.length, 1)
})
