import t from 'tap'
import {
  Epoll,
  EPOLLERR,
  EPOLLET,
  EPOLLHUP,
  EPOLLIN,
  EPOLLOUT,
  EPOLLPRI,
  EPOLLRDHUP,
} from '../../../agent/sys/epoll.ts'
import { closeFd } from '../../../agent/sys/fd.ts'
import { socketError } from '../../../agent/sys/sockopt.ts'
import { BareEnd, fdPair } from '../../helpers/io.ts'

const ECONNRESET = 104

async function watched(t: { teardown(callback: () => void): void }, events: number, tag = 0) {
  const [near, far] = await fdPair()
  const epoll = new Epoll(4)
  t.teardown(() => epoll.close())
  t.teardown(() => closeFd(near))
  epoll.add(near, events, tag)
  return { epoll, near, end: new BareEnd(t as never, far) }
}

await t.test('what is found is told with its descriptor and its tag', async t => {
  for (const tag of [0, 7, 0x7fff_ffff, -0x8000_0000]) {
    const { epoll, near, end } = await watched(t, EPOLLIN, tag)
    t.equal(epoll.wait(0), 0)
    end.send('x')
    t.equal(epoll.wait(1000), 1)
    t.strictSame([epoll.fdAt(0), epoll.tagAt(0), epoll.eventsAt(0)], [near, tag, EPOLLIN])
    epoll.change(near, EPOLLOUT, 3)
    t.equal(epoll.wait(0), 1)
    t.strictSame([epoll.tagAt(0), epoll.eventsAt(0)], [3, EPOLLOUT])
  }
})

await t.test('several are found at once, as many as there is place for, the others next time', async t => {
  const epoll = new Epoll(2)
  t.teardown(() => epoll.close())
  const fds: number[] = []
  for (let made = 0; made < 3; made++) {
    const [near, far] = await fdPair()
    t.teardown(() => closeFd(near))
    t.teardown(() => closeFd(far))
    fds.push(near)
    epoll.add(near, EPOLLOUT | EPOLLET)
  }
  t.equal(epoll.wait(0), 2)
  const found = [epoll.fdAt(0), epoll.fdAt(1)]
  t.equal(epoll.wait(0), 1)
  t.strictSame([...found, epoll.fdAt(0)], fds)
  t.equal(epoll.wait(0), 0)
})

await t.test(
  'each change is told once where that is asked for, and as long as it is so elsewhere',
  async t => {
    const edge = await watched(t, EPOLLIN | EPOLLET)
    const level = await watched(t, EPOLLIN)
    for (const { end } of [edge, level]) end.send('x')
    for (const expected of [1, 0]) t.equal(edge.epoll.wait(0), expected)
    for (const expected of [1, 1]) t.equal(level.epoll.wait(0), expected)
    edge.end.send('y')
    t.equal(edge.epoll.wait(0), 1)
  },
)

await t.test('the end of the peer, its reset and its urgent bytes are told apart', async t => {
  const ended = await watched(t, EPOLLIN | EPOLLRDHUP)
  ended.end.end()
  ended.epoll.wait(1000)
  t.equal(ended.epoll.eventsAt(0), EPOLLIN | EPOLLRDHUP)
  const urgent = await watched(t, EPOLLIN | EPOLLPRI)
  urgent.end.send('x')
  urgent.end.sendUrgent('!')
  urgent.epoll.wait(1000)
  t.equal(urgent.epoll.eventsAt(0), EPOLLIN | EPOLLPRI)
  const reset = await watched(t, 0)
  t.equal(socketError(reset.near), 0)
  reset.end.reset()
  reset.epoll.wait(1000)
  t.equal(reset.epoll.eventsAt(0) & (EPOLLERR | EPOLLHUP), EPOLLERR | EPOLLHUP)
  t.equal(socketError(reset.near), ECONNRESET)
  t.equal(socketError(reset.near), 0, 'the question takes it off')
})

await t.test(
  'what is removed is found no more, and what cannot be watched is said with its name',
  async t => {
    const { epoll, near, end } = await watched(t, EPOLLIN)
    end.send('x')
    epoll.remove(near)
    t.equal(epoll.wait(0), 0)
    t.throws(() => epoll.remove(near), { code: 'SYSCALL', message: /epoll_ctl\(DEL, \d+\): ENOENT/ })
    t.throws(() => epoll.change(near, 0), { code: 'SYSCALL', message: /ENOENT/ })
    t.throws(() => epoll.add(-1, EPOLLIN), { code: 'SYSCALL', message: /EBADF/ })
    const other = new Epoll(1)
    other.close()
    t.throws(() => other.wait(0), { code: 'SYSCALL', message: /epoll_wait: EBADF/ })
    t.not(socketError(-1), 0)
  },
)
