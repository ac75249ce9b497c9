import { once } from 'node:events'
import t, { type Test } from 'tap'
import { NOT_ENROLLED } from '../../lib/enrolment.ts'
import { applyRedirect, inspectRedirect, readCounters, removeRedirect } from '../../agent/redirect/apply.ts'
import { until } from '../../lab/demo/facts.ts'
import { askFrom, standInAgent } from '../helpers/capture.ts'
import { connectFrom, connectingFrom, inPod, makePods, serve, type TestPod } from '../helpers/pods.ts'

const strict = { ...NOT_ENROLLED, mesh: true, strictInbound: true }
const require = { ...NOT_ENROLLED, mesh: true, requireOutbound: true }

/**
 * Plain clients in the pod call these addresses until each SYN has been dropped, repeated (which the kernel does after a
 * second) and dropped again, by what `dropped` says. Gives what has become of them: `waits`, `connected`, or an errno.
 */
async function callsOf(t: Test, pod: TestPod, hosts: readonly string[], dropped: () => Promise<bigint>) {
  const enough = (await dropped()) + 2n * BigInt(hosts.length)
  const states = hosts.map(() => 'waits')
  for (const [at, host] of hosts.entries()) {
    const socket = connectingFrom(t, pod, host, 8080)
    socket.on('connect', () => (states[at] = 'connected'))
    socket.on('error', (err: NodeJS.ErrnoException) => (states[at] = err.code!))
  }
  await until(`${enough} dropped`, 20_000, async () => (await dropped()) >= enough || undefined)
  return states
}

await t.test('a strict pod without capture rules lets no plaintext in, and counts it', async t => {
  const [pod, outside] = makePods(t, ['pod', 'outside'])
  await standInAgent(t, pod!)
  await serve(t, pod!, 8080, socket => socket.end('in the clear'))
  await serve(t, pod!, 9090, socket => socket.end('excluded'))
  await applyRedirect(pod!.fd, { ...strict, excludeInboundPorts: [9090] })
  t.match(await askFrom(t, outside!, pod!.ip, 8080), /^inbound/)
  for (const tool of ['iptables', 'ip6tables']) inPod(pod!, tool, ['-t', 'nat', '-F'])
  const dropped = async () => (await readCounters(pod!.fd))['strict/inbound']!
  t.strictSame(await callsOf(t, outside!, [pod!.ip, pod!.ip6], dropped), ['waits', 'waits'])
  t.match(await askFrom(t, outside!, pod!.ip, 15008), /^hbone/, 'tunnels come in')
  t.equal(await askFrom(t, outside!, pod!.ip, 9090), 'excluded')
  t.equal(await askFrom(t, pod!, pod!.ip, 8080), 'in the clear', 'the pod reaches itself')
})

await t.test('a strict pod whose every rule was flushed is closed', async t => {
  const [pod, outside] = makePods(t, ['pod', 'outside'])
  await standInAgent(t, pod!)
  await serve(t, pod!, 8080, socket => socket.end('in the clear'))
  await applyRedirect(pod!.fd, strict)
  for (const table of ['nat', 'filter', 'mangle']) inPod(pod!, 'iptables', ['-t', table, '-F'])
  // There is no rule left that counts; the policy of the chain does.
  const dropped = async () =>
    BigInt(/^:INPUT DROP \[(\d+):/m.exec(inPod(pod!, 'iptables-save', ['-c', '-t', 'filter']))![1]!)
  t.strictSame(await callsOf(t, outside!, [pod!.ip], dropped), ['waits'])
  await applyRedirect(pod!.fd, strict)
  t.match(await askFrom(t, outside!, pod!.ip, 8080), /^inbound/)
  t.strictSame(await inspectRedirect(pod!.fd, strict), { drift: [], bypasses: [] })
})

await t.test('a pod that requires mTLS sends no plaintext without capture rules', async t => {
  const [pod, outside] = makePods(t, ['pod', 'outside'])
  await standInAgent(t, pod!)
  await serve(t, outside!, 8080, socket => socket.end('in the clear'))
  await applyRedirect(pod!.fd, require)
  for (const host of [outside!.ip, outside!.ip6]) t.match(await askFrom(t, pod!, host, 8080), /^outbound/)
  for (const tool of ['iptables', 'ip6tables']) inPod(pod!, tool, ['-t', 'nat', '-F'])
  const dropped = async () => (await readCounters(pod!.fd))['require/outbound']!
  t.strictSame(await callsOf(t, pod!, [outside!.ip, outside!.ip6], dropped), ['waits', 'waits'])
})

await t.test('connections that stand are not touched by the lock', async t => {
  const [pod, outside] = makePods(t, ['pod', 'outside'])
  await serve(t, pod!, 8080, socket => socket.pipe(socket))
  const socket = await connectFrom(t, outside!, pod!.ip, 8080)
  await applyRedirect(pod!.fd, { ...strict, requireOutbound: true })
  socket.write('still here')
  const [chunk] = (await once(socket, 'data')) as [Buffer]
  t.equal(chunk.toString(), 'still here')
})

await t.test('leaving strict gives the policy back; a firewall of the pod keeps its own', async t => {
  const [pod, guarded] = makePods(t, ['pod', 'guarded'])
  const policy = (of: TestPod) => /^-P INPUT (\w+)$/m.exec(inPod(of, 'iptables', ['-S', 'INPUT']))![1]
  await applyRedirect(pod!.fd, strict)
  t.equal(policy(pod!), 'DROP')
  await applyRedirect(pod!.fd, { ...strict, strictInbound: false })
  t.equal(policy(pod!), 'ACCEPT')
  await applyRedirect(pod!.fd, strict)
  await removeRedirect(pod!.fd)
  t.equal(policy(pod!), 'ACCEPT')

  inPod(guarded!, 'iptables', ['-A', 'INPUT', '-i', 'lo', '-j', 'ACCEPT'])
  inPod(guarded!, 'iptables', ['-P', 'INPUT', 'DROP'])
  await applyRedirect(guarded!.fd, strict)
  t.strictSame(await inspectRedirect(guarded!.fd, strict), { drift: [], bypasses: [] })
  t.notMatch(inPod(guarded!, 'iptables', ['-S', 'INPUT']), /END/)
  await removeRedirect(guarded!.fd)
  t.equal(inPod(guarded!, 'iptables', ['-S', 'INPUT']), '-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n')
})
