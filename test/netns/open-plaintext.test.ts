import { once } from 'node:events'
import t from 'tap'
import {
  endOrTell,
  openPlaintextOf,
  type PlaintextThreads,
  type StrictPod,
} from '../../agent/pods/open-plaintext.ts'
import { inNetns } from '../../agent/sys/netns.ts'
import { connectSocket } from '../../agent/sys/socket.ts'
import { MARK } from '../../agent/ports.ts'
import { closeFd } from '../../agent/sys/fd.ts'
import type { ConnectionRecord } from '../../agent/worker/messages.ts'
import { connectFrom, makePods, serve, type TestPod } from '../helpers/pods.ts'
import { quietLog } from '../helpers/quiet-log.ts'

const NO_THREADS: PlaintextThreads = {
  connections: () => Promise.resolve([]),
  cutPlaintext: () => Promise.resolve([]),
}

function strictPod(pod: TestPod, excludeInboundPorts: readonly number[] = []): StrictPod {
  const { fd, ip, ip6 } = pod
  return { uid: 'uid', namespace: 'shop', name: 'pod', ips: [ip, ip6], netnsFd: fd, excludeInboundPorts }
}

await t.test('connections from before the enrolment are listed by whom they are from', async t => {
  const [pod, outside] = makePods(t, ['pod', 'outside'])
  await serve(t, pod!, 8080, socket => socket.write('hello'))
  await serve(t, pod!, 9090, socket => socket.write('excluded'))
  await serve(t, outside!, 7070, socket => socket.write('hello'))
  t.strictSame(await openPlaintextOf(strictPod(pod!), NO_THREADS), [])
  for (const ip of [pod!.ip, pod!.ip6]) await connectFrom(t, outside!, ip, 8080)
  await connectFrom(t, outside!, pod!.ip, 9090)
  await connectFrom(t, pod!, outside!.ip, 7070) // its own calls are no business of strict
  await connectFrom(t, pod!, pod!.ip, 8080) // nor are those to itself
  const open = await openPlaintextOf(strictPod(pod!, [9090]), NO_THREADS)
  t.match(
    open.toSorted((a, b) => (a.from < b.from ? -1 : 1)), // '1' comes before '['
    [
      { from: /^10\.77\.0\.2:\d+$/, port: 8080, kind: 'pre-enrolment' },
      { from: /^\[fd77::2\]:\d+$/, port: 8080, kind: 'pre-enrolment' },
    ],
  )
  t.equal(open.length, 2)
})

await t.test('what the agent carries is listed once, as its threads know it', async t => {
  const [pod, outside] = makePods(t, ['pod', 'outside'])
  await serve(t, pod!, 8080, socket => socket.write('hello'))
  const socket = await connectFrom(t, outside!, pod!.ip, 8080)
  await once(socket, 'data')
  // The agent's own socket has the application's two ends the other way round, and its mark.
  const { localPort } = socket
  const agents = inNetns(pod!.fd, () => connectSocket({ family: 4, mark: MARK }))
  closeFd(agents)
  const record = (reason: string) =>
    ({
      podUid: 'uid',
      direction: 'inbound',
      reason,
      source: { ip: outside!.ip, port: localPort },
      destination: { ip: pod!.ip, port: 8080 },
    }) as ConnectionRecord
  const threads = {
    ...NO_THREADS,
    connections: () =>
      Promise.resolve(['peer-not-enrolled', 'mtls', 'kubelet-probe', 'excluded-port'].map(record)),
  }
  const carried = (await openPlaintextOf(strictPod(pod!), threads)).filter(({ kind }) => kind === 'carried')
  t.strictSame(carried, [
    { from: `${outside!.ip}:${localPort}`, port: 8080, kind: 'carried', reason: 'peer-not-enrolled' },
  ])
})

await t.test('asked to, it ends them for both sides; else it says that they go on', async t => {
  const [pod, outside] = makePods(t, ['pod', 'outside'])
  const ends: string[] = []
  await serve(t, pod!, 8080, socket => {
    socket.on('error', err => ends.push((err as NodeJS.ErrnoException).code!))
    socket.write('hello')
  })
  const sockets = [
    await connectFrom(t, outside!, pod!.ip, 8080),
    await connectFrom(t, outside!, pod!.ip6, 8080),
  ]
  for (const socket of sockets) await once(socket, 'data')
  const { log, lines } = quietLog()
  await endOrTell(strictPod(pod!), false, NO_THREADS, log)
  t.match(lines, [{ level: 'warn', msg: /go on/, connections: 2 }])
  t.notOk(sockets.some(socket => socket.destroyed))
  const failures = sockets.map(async socket => (await once(socket, 'error'))[0] as NodeJS.ErrnoException)
  const cut: string[] = []
  const threads = {
    ...NO_THREADS,
    cutPlaintext: (uid: string) => {
      cut.push(uid)
      return Promise.resolve([])
    },
  }
  for (const socket of sockets) socket.resume()
  await endOrTell(strictPod(pod!), true, threads, log)
  t.strictSame(
    (await Promise.all(failures)).map(({ code }) => code),
    ['ECONNRESET', 'ECONNRESET'],
  )
  t.match(lines[1], { level: 'warn', msg: /was cut/, connections: 2 })
  t.strictSame(cut, ['uid'], 'the threads cut theirs')
  t.strictSame(await openPlaintextOf(strictPod(pod!), NO_THREADS), [])
})

await t.test('what cannot be looked at is said, and fails nobody', async t => {
  const [pod] = makePods(t, ['pod'])
  const { log, lines } = quietLog()
  const threads = { ...NO_THREADS, connections: () => Promise.reject(new Error('threads are gone')) }
  await endOrTell(strictPod(pod!), true, threads, log)
  t.match(lines, [{ level: 'error', err: /threads are gone/ }])
})
