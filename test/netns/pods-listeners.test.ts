import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { PORT } from '../../agent/ports.ts'
import type { HolderRecord } from '../../agent/pods/holder-file.ts'
import { findHolder, isHolderAlive, killHolder, startHolder } from '../../agent/pods/holder.ts'
import { ListenerKeeper } from '../../agent/pods/listeners.ts'
import { listeningSockets } from '../../agent/pods/listening.ts'
import { closeFd, listenTcp } from '../../agent/sys/socket.ts'
import { inNetns } from '../../agent/sys/netns.ts'
import {
  getOption,
  isDualStack,
  isListening,
  SO_MARK,
  socketInode,
  SOL_SOCKET,
} from '../../agent/sys/sockopt.ts'
import type { PodListeners } from '../../agent/worker/messages.ts'
import { becomes } from '../helpers/becomes.ts'
import { canMakeGroups, TestGroup } from '../helpers/pod-processes.ts'
import { connectFrom, makePods, type TestPod } from '../helpers/pods.ts'
import { quietLog } from '../helpers/quiet-log.ts'
import { readAll } from '../helpers/tcp.ts'

const AGENT = fileURLToPath(new URL('../helpers/listener-agent.ts', import.meta.url))
const UID = 'uid-1'

function world(t: Test): { pod: TestPod; runDir: string; keeper: ListenerKeeper } {
  // Not the test's own directory, which is gone before what is torn down here.
  const runDir = mkdtempSync(join(tmpdir(), 'culvert-listeners-'))
  t.teardown(() => rmSync(runDir, { recursive: true }))
  const [pod] = makePods(t, ['pod'])
  const keeper = keeperOf(t, runDir)
  t.teardown(async () => {
    await keeper.close()
    const last = new ListenerKeeper({ runDir, log: quietLog().log })
    last.prune(new Set())
    await last.close()
  })
  return { pod: pod!, runDir, keeper }
}

function keeperOf(t: Test, runDir: string): ListenerKeeper {
  const keeper = new ListenerKeeper({ runDir, log: quietLog().log })
  t.teardown(() => keeper.close())
  return keeper
}

function owned(t: Test, listeners: PodListeners): PodListeners {
  t.teardown(() => Object.values(listeners).forEach(closeFd))
  return listeners
}

function record(runDir: string): HolderRecord | undefined {
  const { pods } = JSON.parse(readFileSync(join(runDir, 'holders.json'), 'utf8')) as {
    pods: Record<string, HolderRecord>
  }
  return pods[UID]
}

async function agent(
  t: Test,
  runDir: string,
  pod: TestPod,
  word: string,
  under: readonly string[] = [],
): Promise<ChildProcess> {
  const [program, ...args] = [...under, process.execPath, AGENT, runDir, UID, `/run/netns/${pod.netns}`, word]
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  await once(child.stdout, 'data')
  return child
}

async function kill(child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}

await t.test(
  'each set is the same three sockets: marked, both families, on the ports of the agent',
  async t => {
    const { pod, keeper } = world(t)
    const [one, two] = await Promise.all([keeper.acquire(UID, pod.fd), keeper.acquire(UID, pod.fd)])
    owned(t, one)
    owned(t, two)
    for (const name of ['outbound', 'inbound', 'hbone'] as const) {
      t.not(one[name], two[name])
      t.equal(socketInode(one[name]), socketInode(two[name]))
      t.ok(isListening(one[name], PORT[name]))
      t.ok(isDualStack(one[name]))
      t.equal(getOption(one[name], SOL_SOCKET, SO_MARK, 'SO_MARK'), 0x539)
      t.strictSame(listeningSockets(pod.fd).get(PORT[name]), new Set([socketInode(one[name])]))
    }
  },
)

await t.test('the holder has the sockets and nothing else, and its record is no secret', async t => {
  const { pod, runDir, keeper } = world(t)
  const listeners = owned(t, await keeper.acquire(UID, pod.fd))
  const { pid, fds } = record(runDir)!
  t.strictSame(readdirSync(`/proc/${pid}/fd`), ['0', '1', '2', '3', '4', '5'])
  t.equal(readlinkSync(`/proc/${pid}/fd/${fds.hbone}`), `socket:[${socketInode(listeners.hbone)}]`)
  for (const fd of [0, 1, 2]) t.equal(readlinkSync(`/proc/${pid}/fd/${fd}`), '/dev/null')
  t.equal(statSync(join(runDir, 'holders.json')).mode & 0o777, 0o600)
})

await t.test('connections that come while the agent is dead wait for the next one', async t => {
  const { pod, runDir } = world(t)
  for (const word of ['first', 'second', 'third']) {
    const waiting =
      word === 'first'
        ? undefined
        : Promise.all(
            Array.from({ length: 20 }, async () => {
              const socket = await connectFrom(t, pod, pod.ip, PORT.inbound)
              return (await readAll(socket)).toString()
            }),
          )
    const child = await agent(t, runDir, pod, word)
    if (waiting) t.strictSame(new Set(await waiting), new Set([word]))
    t.equal((await readAll(await connectFrom(t, pod, pod.ip6, PORT.inbound))).toString(), word)
    await kill(child)
  }
})

await t.test('two agents accept from one queue, and none of it is lost when one dies', async t => {
  const { pod, runDir } = world(t)
  const silent = await agent(t, runDir, pod, '')
  const serving = await agent(t, runDir, pod, 'served')
  await kill(silent)
  for (let times = 0; times < 20; times++)
    t.equal((await readAll(await connectFrom(t, pod, pod.ip, PORT.inbound))).toString(), 'served')
  await kill(serving)
})

await t.test('a released pod has no holder and nothing listens; what is not live is pruned', async t => {
  const { pod, runDir, keeper } = world(t)
  const first = await keeper.acquire(UID, pod.fd)
  Object.values(first).forEach(closeFd)
  const holder = record(runDir)!
  t.ok(keeper.holds(UID))
  keeper.release(UID)
  t.notOk(keeper.holds(UID))
  await keeper.idle()
  t.equal(record(runDir), undefined)
  await becomes(() => !isHolderAlive(holder))
  t.equal(listeningSockets(pod.fd).size, 0)

  Object.values(await keeper.acquire(UID, pod.fd)).forEach(closeFd)
  const next = keeperOf(t, runDir)
  t.ok(next.holds(UID), 'the next agent knows')
  next.prune(new Set([UID]))
  t.ok(next.holds(UID))
  next.prune(new Set(['another']))
  await next.idle()
  t.equal(record(runDir), undefined)
})

await t.test('a holder that is killed is replaced by one with the same sockets', async t => {
  const { pod, runDir, keeper } = world(t)
  const { inbound } = owned(t, await keeper.acquire(UID, pod.fd))
  const before = record(runDir)!
  process.kill(before.pid, 'SIGKILL')
  await becomes(() => ![undefined, before.pid].includes(record(runDir)?.pid))
  const after = record(runDir)!
  t.equal(readlinkSync(`/proc/${after.pid}/fd/${after.fds.inbound}`), `socket:[${socketInode(inbound)}]`)
  t.throws(() => readFileSync(`/proc/${before.pid}/stat`), { code: 'ENOENT' }, 'the dead one is reaped')
})

await t.test('a record that is lost or broken: the holder is found all the same', async t => {
  const { pod, runDir, keeper } = world(t)
  const { inbound } = owned(t, await keeper.acquire(UID, pod.fd))
  const { pid } = record(runDir)!
  for (const spoil of [
    () => rmSync(join(runDir, 'holders.json')),
    () => writeFileSync(join(runDir, 'holders.json'), '{"pods":'),
  ]) {
    spoil()
    const again = owned(t, await keeperOf(t, runDir).acquire(UID, pod.fd))
    t.equal(socketInode(again.inbound), socketInode(inbound))
    t.equal(record(runDir)!.pid, pid)
  }
})

await t.test('a record of another process, or of another namespace, is not believed', async t => {
  const { pod, runDir, keeper } = world(t)
  const [other] = makePods(t, ['other'])
  const own = owned(t, await keeper.acquire(UID, pod.fd))
  const truth = record(runDir)!
  writeFileSync(
    join(runDir, 'holders.json'),
    JSON.stringify({ pods: { [UID]: { ...truth, pid: process.pid } } }),
  )
  const wrongPid = keeperOf(t, runDir)
  t.notOk(wrongPid.holds(UID))
  writeFileSync(join(runDir, 'holders.json'), JSON.stringify({ pods: { [UID]: truth } }))
  const moved = owned(t, await keeperOf(t, runDir).acquire(UID, other!.fd))
  t.not(socketInode(moved.inbound), socketInode(own.inbound))
  t.ok(listeningSockets(other!.fd).has(PORT.inbound))
})

await t.test(
  'an agent that may not copy the sockets makes new ones, and the old holder takes none of their share',
  async t => {
    const { pod, runDir } = world(t)
    await kill(await agent(t, runDir, pod, 'first'))
    const before = record(runDir)!
    const child = await agent(t, runDir, pod, 'second', ['setpriv', '--bounding-set', '-sys_ptrace'])
    await becomes(() => !isHolderAlive(before))
    t.not(record(runDir)!.pid, before.pid)
    for (let times = 0; times < 20; times++)
      t.equal((await readAll(await connectFrom(t, pod, pod.ip, PORT.inbound))).toString(), 'second')
    await kill(child)
  },
)

await t.test(
  'the agent of another container takes over, and from then on nothing depends on the first one',
  { skip: !canMakeGroups && 'no control groups can be made here' },
  async t => {
    const { pod, runDir, keeper } = world(t)
    const [home, elsewhere] = makePods(t, ['home', 'elsewhere']) as [TestPod, TestPod]
    const containers = ['first', 'second', 'third'].map(name => new TestGroup(t, name)) as [
      TestGroup,
      TestGroup,
      TestGroup,
    ]
    const inside = (container: TestGroup, at: TestPod) => [...container.argv, 'ip', 'netns', 'exec', at.netns]
    await agent(t, runDir, pod, '', inside(containers[0], home))
    const first = record(runDir)!
    t.ok(containers[0].pids().includes(first.pid))
    const waiting = Promise.all(
      Array.from({ length: 10 }, async () =>
        (await readAll(await connectFrom(t, pod, pod.ip, PORT.inbound))).toString(),
      ),
    )
    await agent(t, runDir, pod, 'second', inside(containers[1], elsewhere))
    t.strictSame(new Set(await waiting), new Set(['second']), 'what came before is served')
    const second = record(runDir)!
    t.ok(containers[1].pids().includes(second.pid), 'a holder of its own')
    await becomes(() => !isHolderAlive(first))
    await containers[0].end()
    t.ok(isHolderAlive(second))
    t.equal((await readAll(await connectFrom(t, pod, pod.ip, PORT.inbound))).toString(), 'second')

    // The second agent is killed, and its container goes on.
    for (const pid of containers[1].pids()) if (pid !== second.pid) process.kill(pid, 'SIGKILL')
    const late = connectFrom(t, pod, pod.ip, PORT.inbound)
    await agent(t, runDir, pod, 'third', inside(containers[1], elsewhere))
    t.equal((await readAll(await late)).toString(), 'third')
    t.equal(record(runDir)!.pid, second.pid, 'in the same container the same holder stays')

    // Without the record it is found, though the agents' networks differ.
    rmSync(join(runDir, 'holders.json'))
    await agent(t, runDir, pod, 'fourth', inside(containers[2], home))
    await becomes(() => !isHolderAlive(second))
    t.ok(containers[2].pids().includes(record(runDir)!.pid))
    await containers[1].end()
    t.equal((await readAll(await connectFrom(t, pod, pod.ip, PORT.inbound))).toString(), 'fourth')
    keeper.release(UID)
    await keeper.idle()
  },
)

await t.test(
  "an agent whose successor's container ends keeps the sockets itself again",
  { skip: !canMakeGroups && 'no control groups can be made here' },
  async t => {
    const { pod, runDir } = world(t)
    const [first, second] = [new TestGroup(t, 'first'), new TestGroup(t, 'second')]
    await agent(t, runDir, pod, 'first', first.argv)
    await agent(t, runDir, pod, '', second.argv)
    const held = record(runDir)!
    t.ok(second.pids().includes(held.pid))
    await second.end()
    await becomes(() => isHolderAlive(record(runDir)!))
    t.ok(first.pids().includes(record(runDir)!.pid))
    t.equal((await readAll(await connectFrom(t, pod, pod.ip, PORT.inbound))).toString(), 'first')
  },
)

await t.test("a process of the pod's that passes for a holder is not taken for one", async t => {
  const { pod, runDir } = world(t)
  const listeners = ['outbound', 'inbound', 'hbone'] as const
  const fds = listeners.map(name => inNetns(pod.fd, () => listenTcp({ port: PORT[name], reusePort: true })))
  t.teardown(() => fds.forEach(closeFd))
  const pretender = inNetns(pod.fd, () =>
    startHolder({ outbound: fds[0]!, inbound: fds[1]!, hbone: fds[2]! }, () => undefined),
  )
  t.teardown(() => killHolder(pretender))
  t.equal(findHolder(pod.fd, UID), undefined)
  const keeper = keeperOf(t, runDir)
  const own = owned(t, await keeper.acquire(UID, pod.fd))
  t.not(socketInode(own.inbound), socketInode(fds[1]!))
  t.ok(isHolderAlive(pretender), 'nor is it ended')
})

await t.test('a port that the application has taken is an error, and leaves no holder', async t => {
  const { pod, runDir, keeper } = world(t)
  const fd = inNetns(pod.fd, () => listenTcp({ port: PORT.hbone }))
  t.teardown(() => closeFd(fd))
  await t.rejects(keeper.acquire(UID, pod.fd), { code: 'SYSCALL', message: /port 15008: EADDRINUSE/ })
  t.notOk(keeper.holds(UID))
  t.throws(() => record(runDir), { code: 'ENOENT' })
  t.notOk(listeningSockets(pod.fd).has(PORT.outbound))
})

await t.test('a keeper that was closed keeps nothing and says so', async t => {
  const { pod, runDir, keeper } = world(t)
  Object.values(await keeper.acquire(UID, pod.fd)).forEach(closeFd)
  await keeper.close()
  await t.rejects(keeper.acquire(UID, pod.fd), { code: 'CLOSED' })
  t.ok(isHolderAlive(record(runDir)!))
  const next = keeperOf(t, runDir)
  next.release(UID)
  await next.idle()
})
