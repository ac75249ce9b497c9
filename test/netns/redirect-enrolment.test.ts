import { once } from 'node:events'
import type { Socket } from 'node:net'
import t, { type Test } from 'tap'
import { NOT_ENROLLED } from '../../lib/enrolment.ts'
import {
  applyRedirect,
  inspectRedirect,
  readCounters,
  removeRedirect,
  removeReturnPath,
} from '../../agent/redirect/apply.ts'
import { askFrom, connectAsAgent, standInAgent } from '../helpers/capture.ts'
import { connectFrom, inPod, makePods, serve, type TestPod } from '../helpers/pods.ts'

const settings = { ...NOT_ENROLLED, mesh: true }

/** A connection to an application that echoes; `beat` proves that it lives. */
async function echoConnection(
  t: Test,
  from: TestPod,
  to: TestPod,
  port: number,
  host = to.ip,
): Promise<() => Promise<void>> {
  await serve(t, to, port, socket => socket.pipe(socket))
  return beatOf(t, await connectFrom(t, from, host, port))
}

function beatOf(t: Test, socket: Socket): () => Promise<void> {
  let beats = 0
  return async () => {
    const text = `beat ${++beats}`
    socket.write(text)
    const [chunk] = (await once(socket, 'data')) as [Buffer]
    t.equal(chunk.toString(), text)
  }
}

await t.test(
  'connections that were open live through enrolment, settings and removal; new ones are captured',
  async t => {
    const [pod, outside] = makePods(t, ['pod', 'outside'])
    await standInAgent(t, pod!)
    const beats = [
      await echoConnection(t, pod!, outside!, 7001),
      await echoConnection(t, outside!, pod!, 7002),
      await echoConnection(t, outside!, pod!, 7003, pod!.ip6),
      await echoConnection(t, pod!, pod!, 7004, '127.0.0.1'),
    ]
    const all = async () => {
      for (const beat of beats) await beat()
    }
    await all()
    await applyRedirect(pod!.fd, settings)
    await all()
    t.match(await askFrom(t, outside!, pod!.ip, 7002), /^inbound/)
    t.match(await readCounters(pod!.fd), {
      'pre-enrolment/outbound': 1n,
      'pre-enrolment/inbound': 2n,
      'captured/inbound': 1n,
    })
    await applyRedirect(pod!.fd, { ...settings, strictInbound: true, requireOutbound: true })
    await all()
    await removeRedirect(pod!.fd)
    await all()
  },
)

await t.test(
  'what was captured lives on after removal while the way back is kept, and then nothing is left',
  async t => {
    const [pod, outside] = makePods(t, ['pod', 'outside'])
    await serve(t, pod!, 8080, socket => socket.pipe(socket))
    await serve(t, pod!, 15006, socket => socket.pipe(socket))
    await applyRedirect(pod!.fd, settings)
    const captured = beatOf(t, await connectFrom(t, outside!, pod!.ip, 8080))
    const transparent = beatOf(t, await connectAsAgent(t, pod!, { host: pod!.ip, port: 8080 }, outside!.ip))
    await captured()
    await transparent()
    await removeRedirect(pod!.fd, { keepReturnPath: true })
    await captured()
    await transparent()
    t.notMatch(inPod(pod!, 'iptables-save', ['-t', 'nat']), /CULVERT/)
    await removeReturnPath(pod!.fd)
    t.notMatch(inPod(pod!, 'iptables-save', []), /CULVERT/)
    t.notMatch(inPod(pod!, 'ip6tables-save', []), /CULVERT/)
    t.notMatch(inPod(pod!, 'ip', ['rule']) + inPod(pod!, 'ip', ['-6', 'rule']), /0x111/)
  },
)

await t.test(
  'programming again changes nothing and loses no count; other settings keep the counts',
  async t => {
    const [pod] = makePods(t, ['pod'])
    await standInAgent(t, pod!)
    await serve(t, pod!, 8080, socket => socket.end())
    await applyRedirect(pod!.fd, settings)
    await askFrom(t, pod!, '127.0.0.1', 8080)
    await Promise.all([applyRedirect(pod!.fd, settings), applyRedirect(pod!.fd, settings)])
    t.equal((await readCounters(pod!.fd)).loopback, 1n)
    await applyRedirect(pod!.fd, { ...settings, excludeInboundPorts: [8080] })
    t.equal((await readCounters(pod!.fd)).loopback, 1n)
    t.strictSame(await inspectRedirect(pod!.fd, { ...settings, excludeInboundPorts: [8080] }), {
      drift: [],
      bypasses: [],
    })
  },
)

await t.test('a namespace without IPv6 is captured all the same', async t => {
  const [pod, outside] = makePods(t, ['pod', 'outside'])
  inPod(pod!, 'sysctl', ['-qw', 'net.ipv6.conf.all.disable_ipv6=1', 'net.ipv6.conf.lo.disable_ipv6=1'])
  await standInAgent(t, pod!)
  await applyRedirect(pod!.fd, settings)
  t.match(await askFrom(t, pod!, outside!.ip, 80), /^outbound/)
  t.strictSame(await inspectRedirect(pod!.fd, settings), { drift: [], bypasses: [] })
  await removeRedirect(pod!.fd)
})
