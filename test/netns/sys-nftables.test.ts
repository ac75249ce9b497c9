import t from 'tap'
import { NOT_ENROLLED } from '../../lib/enrolment.ts'
import { listeningByProc, listeningSockets } from '../../agent/pods/listening.ts'
import { applyRedirect } from '../../agent/redirect/apply.ts'
import { Iptables } from '../../agent/redirect/iptables.ts'
import { inNetns } from '../../agent/sys/netns.ts'
import { readNftables } from '../../agent/sys/nftables.ts'
import { askFrom, standInAgent } from '../helpers/capture.ts'
import { inPod, makePods, type TestPod } from '../helpers/pods.ts'

const settings = { ...NOT_ENROLLED, mesh: true, strictInbound: true }

function fingerprint(pod: TestPod): string {
  return inNetns(pod.fd, () => readNftables())!.fingerprint
}

await t.test('pods with the same rules have the same fingerprint, whatever was counted', async t => {
  const [one, other] = makePods(t, ['one', 'other'])
  t.equal(fingerprint(one!), fingerprint(other!), 'nothing')
  for (const pod of [one!, other!]) {
    await standInAgent(t, pod)
    await applyRedirect(pod.fd, settings)
  }
  const before = fingerprint(one!)
  t.equal(fingerprint(other!), before)
  t.match(await askFrom(t, other!, one!.ip, 8080), /^(inbound|outbound)/)
  const { counted } = inNetns(other!.fd, () => readNftables())!
  t.match(
    counted.find(({ comment }) => comment === 'culvert:captured/outbound'),
    { table: 'nat', chain: 'CULVERT_OUTPUT', packets: 1n },
  )
  t.equal(fingerprint(other!), before)
})

await t.test('whatever is changed in the rules changes it', async t => {
  const [pod] = makePods(t, ['pod'])
  await applyRedirect(pod!.fd, settings)
  const seen = new Set([fingerprint(pod!)])
  for (const command of [
    'iptables -t nat -I OUTPUT -j ACCEPT',
    'iptables -t nat -D OUTPUT 1',
    'iptables -P INPUT ACCEPT',
    'iptables -t nat -N X',
    'iptables -t raw -A OUTPUT -p tcp -j NOTRACK',
    'ip6tables -t mangle -D PREROUTING 1',
    'iptables -t nat -R CULVERT_OUTPUT 3 -p tcp -m comment --comment culvert:pass/return -j ACCEPT',
    'nft add table ip mine',
    'nft flush ruleset',
  ]) {
    const before = fingerprint(pod!)
    inPod(pod!, 'sh', ['-c', command])
    t.not(fingerprint(pod!), before, command)
    seen.add(fingerprint(pod!))
  }
  t.ok(seen.size >= 8)
})

await t.test('a pod with more rules than are worth reading is not read', async t => {
  const [pod] = makePods(t, ['pod'])
  const rules = Array.from({ length: 8000 }, (_, at) => `-A OUTPUT -d 10.${at >> 8}.${at & 255}.1 -j ACCEPT`)
  const iptables = await Iptables.detect(pod!.fd)
  await iptables.restore(pod!.fd, 4, ['*filter', ...rules, 'COMMIT', ''].join('\n'))
  t.equal(
    inNetns(pod!.fd, () => readNftables()),
    undefined,
  )
})

await t.test('the kernel tells the same sockets as /proc does', async t => {
  const [pod, other] = makePods(t, ['pod', 'other'])
  await standInAgent(t, pod!)
  const found = listeningSockets(pod!.fd)
  t.strictSame(found, listeningByProc(pod!.fd))
  t.ok([15001, 15006, 15008].every(port => found.get(port)!.size === 1))
  t.equal(listeningSockets(other!.fd).size, 0)
})
