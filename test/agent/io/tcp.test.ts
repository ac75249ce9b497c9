import { randomBytes } from 'node:crypto'
import t, { type Test } from 'tap'
import { loop } from '../../../agent/io/loop.ts'
import { NOTHING, TcpSocket } from '../../../agent/io/tcp.ts'
import { closeFd, dupFd } from '../../../agent/sys/fd.ts'
import { libc } from '../../../agent/sys/libc.ts'
import { encodeSockaddr } from '../../../agent/sys/sockaddr.ts'
import { connectSocket, listenTcp } from '../../../agent/sys/socket.ts'
import { localAddress } from '../../../agent/sys/sockopt.ts'
import { BareEnd, fdPair, Hearer, settled } from '../../helpers/io.ts'

const MIB = 1024 * 1024
/** What is waited for comes at once or never. */
const LIMIT = { timeout: 5000 }
const F_DUPFD_CLOEXEC = 1030

async function pair(t: Test, hearer = new Hearer()) {
  const [near, far] = await fdPair()
  const socket = new TcpSocket(near, hearer)
  hearer.socket = socket
  t.teardown(() => socket.destroy())
  return { socket, hearer, far: new BareEnd(t, far) }
}

/** A port where nobody accepts and the queue is full: who connects waits. */
async function fullPort(t: Test): Promise<number> {
  const fd = listenTcp({ port: 0, backlog: 0, ipv6: false })
  t.teardown(() => closeFd(fd))
  const { port } = localAddress(fd)!
  const address = encodeSockaddr('127.0.0.1', port)
  for (let filling = 0; filling < 3; filling++) {
    const other = connectSocket({ family: 4, mark: 0, keepalive: 'none' })
    t.teardown(() => closeFd(other))
    libc.connect(other, address, address.length)
  }
  return port
}

await t.test(
  'what came before the socket was taken, with the end behind it, is read whole',
  LIMIT,
  async t => {
    const [near, far] = await fdPair()
    const peer = new BareEnd(t, far)
    peer.send('all there is')
    peer.end()
    const hearer = new Hearer()
    const socket = new TcpSocket(near, hearer)
    t.teardown(() => socket.destroy())
    hearer.socket = socket
    socket.resume()
    await hearer.until(() => hearer.hasEnded)
    t.equal(hearer.text, 'all there is')
  },
)

for (const most of [3, 4, 12, 64])
  await t.test(`data with the end right behind it, ${most} bytes a read`, LIMIT, async t => {
    const { socket, hearer, far } = await pair(t, new Hearer(most))
    socket.resume()
    await settled()
    far.send('all there is')
    far.end()
    await hearer.until(() => hearer.hasEnded)
    t.equal(hearer.text, 'all there is')
    t.notOk(socket.isClosed, 'this side may go on')
    socket.write(Buffer.from('an answer'))
    socket.end()
    t.equal(String(await far.receiveAll()), 'an answer')
  })

await t.test('what comes while nobody reads is told when somebody does, the end as well', LIMIT, async t => {
  const { socket, hearer, far } = await pair(t)
  far.send('first')
  await settled()
  far.end()
  await settled()
  t.strictSame(
    hearer.heard.filter(each => each !== 'drained'),
    [],
  )
  socket.resume()
  await hearer.until(() => hearer.hasEnded)
  t.equal(hearer.text, 'first')
})

await t.test('paused in the middle, it goes on where it was', LIMIT, async t => {
  const { socket, hearer, far } = await pair(t, new Hearer(4))
  hearer.onReadable = () => {
    hearer.take()
    if (hearer.text.length === 4) socket.pause()
  }
  socket.resume()
  far.send('12345678')
  far.end()
  await hearer.until(() => hearer.text.length === 4)
  await settled()
  t.equal(hearer.text, '1234')
  socket.resume()
  socket.resume()
  await hearer.until(() => hearer.hasEnded)
  t.equal(hearer.text, '12345678')
})

await t.test('paused and resumed within the call, it is told again', LIMIT, async t => {
  const { socket, hearer, far } = await pair(t, new Hearer(1))
  hearer.onReadable = () => {
    socket.pause()
    socket.resume()
    hearer.take()
  }
  socket.resume()
  far.send('abc')
  far.end()
  await hearer.until(() => hearer.hasEnded)
  t.equal(hearer.text, 'abc')
})

await t.test('an owner that does not read when told is told again', LIMIT, async t => {
  const { socket, hearer, far } = await pair(t)
  let ignored = 0
  hearer.onReadable = () => {
    if (ignored++ >= 3) hearer.take()
  }
  socket.resume()
  far.send('abc')
  await hearer.until(() => hearer.text === 'abc')
  t.equal(ignored, 4)
})

await t.test(
  'an urgent byte stops a read short, and what is behind it comes without being asked for',
  LIMIT,
  async t => {
    const { socket, hearer, far } = await pair(t)
    socket.resume()
    far.send('before')
    far.sendUrgent('!')
    far.send('after')
    await hearer.until(() => hearer.text.endsWith('after'))
    t.match(hearer.text, /^before!?after$/)
  },
)

for (const isReading of [true, false])
  await t.test(`a reset is told once, while ${isReading ? 'somebody' : 'nobody'} reads`, LIMIT, async t => {
    const { socket, hearer, far } = await pair(t)
    if (isReading) socket.resume()
    await settled()
    far.reset()
    await hearer.until(() => hearer.heard.includes('ECONNRESET'))
    t.ok(socket.isClosed)
    t.equal(socket.read(Buffer.alloc(8), 8), NOTHING)
    t.ok(socket.write(Buffer.from('x')))
    await settled()
    t.equal(hearer.heard.filter(each => each === 'ECONNRESET').length, 1)
  })

await t.test('a reset behind an end that was read', LIMIT, async t => {
  const { socket, hearer, far } = await pair(t)
  socket.resume()
  far.end()
  await hearer.until(() => hearer.hasEnded)
  far.reset()
  await hearer.until(() => hearer.heard.some(each => each === 'ECONNRESET' || each === 'EPIPE'))
  t.ok(socket.isClosed)
})

await t.test('what a write meets is told after the call, and once', LIMIT, async t => {
  const { socket, hearer, far } = await pair(t)
  await settled()
  hearer.heard.length = 0
  far.reset()
  t.ok(socket.write(Buffer.from('lost')))
  t.strictSame(hearer.heard, [])
  t.ok(socket.isClosed)
  t.equal(socket.queued, 0)
  await hearer.until(() => hearer.heard.length > 0)
  await settled()
  t.strictSame(hearer.heard, ['ECONNRESET'])
})

for (const [how, leave] of [
  ['destroys', (socket: TcpSocket) => socket.destroy()],
  ['resets', (socket: TcpSocket) => socket.reset()],
  ['gives away', (socket: TcpSocket) => void socket.detach()],
] as const)
  await t.test(`who ${how} the socket after a failed write hears nothing of it`, LIMIT, async t => {
    const { socket, hearer, far } = await pair(t)
    await settled()
    hearer.heard.length = 0
    far.reset()
    socket.write(Buffer.from('lost'))
    leave(socket)
    await settled()
    t.strictSame(hearer.heard, [])
  })

await t.test('a failure that is not told yet is told to who has taken over', LIMIT, async t => {
  const { socket, hearer, far } = await pair(t)
  await settled()
  hearer.heard.length = 0
  far.reset()
  socket.write(Buffer.from('lost'))
  const next = new Hearer()
  socket.owner = next
  await next.until(() => next.heard.length > 0)
  t.strictSame([hearer.heard, next.heard], [[], ['ECONNRESET']])
})

await t.test(
  'what the kernel does not take is kept, in order, and the end goes behind it',
  LIMIT,
  async t => {
    const { socket, hearer, far } = await pair(t)
    const all = randomBytes(24 * MIB)
    const piece = Buffer.alloc(MIB)
    let isKept = false
    for (let at = 0; at < all.length; at += MIB) {
      all.copy(piece, 0, at, at + MIB)
      if (!socket.write(piece)) isKept = true
      piece.fill(0) // which is the caller's again
    }
    t.ok(isKept)
    t.ok(socket.queued > MIB)
    let ended = 0
    socket.end(() => ended++)
    socket.end(() => t.fail('a second end'))
    t.ok(socket.write(Buffer.from('too late')))
    t.notOk(socket.isEnded)
    const got = await far.receiveAll()
    t.ok(got.equals(all))
    t.equal(ended, 1)
    t.ok(socket.isEnded)
    t.equal(socket.queued, 0)
    t.ok(hearer.heard.includes('drained'))
  },
)

await t.test('a peer that resets while bytes are kept', LIMIT, async t => {
  const { socket, hearer, far } = await pair(t)
  while (socket.write(Buffer.alloc(MIB)));
  socket.end(() => t.fail('the end is out'))
  far.reset()
  await hearer.until(() => hearer.heard.includes('ECONNRESET'))
  t.ok(socket.isClosed)
  t.equal(socket.queued, 0)
})

await t.test('an owner may destroy the socket in whatever it is told', LIMIT, async t => {
  const read = await pair(t)
  read.hearer.onReadable = () => read.socket.destroy()
  read.socket.resume()
  read.far.send('abc')
  read.far.end()
  await read.hearer.until(() => read.socket.isClosed)
  const written = await pair(t)
  written.socket.resume()
  written.hearer.onDrained = () => written.socket.destroy()
  while (written.socket.write(Buffer.alloc(MIB)));
  written.far.send('readable as well')
  while (!written.socket.isClosed) {
    written.far.receive()
    await settled()
  }
  await settled()
  t.equal(read.hearer.heard.filter(each => each === 'readable').length, 1)
  t.equal(written.hearer.heard.at(-1), 'drained')
})

await t.test('who connects is told when the connection stands, and not before', LIMIT, async t => {
  const listener = listenTcp({ port: 0, ipv6: false })
  t.teardown(() => closeFd(listener))
  const address = encodeSockaddr('127.0.0.1', localAddress(listener)!.port)
  const hearer = new Hearer()
  const fd = connectSocket({ family: 4, mark: 0 })
  const socket = TcpSocket.connecting(fd, address, hearer)
  t.teardown(() => socket.destroy())
  t.strictSame(hearer.heard, [])
  await hearer.until(() => hearer.heard.length > 0)
  t.strictSame(hearer.heard, ['drained'])
})

await t.test(
  'what is written before the connection stands leaves when it does, the end as well',
  LIMIT,
  async t => {
    const listener = listenTcp({ port: 0, ipv6: false })
    t.teardown(() => closeFd(listener))
    const address = encodeSockaddr('127.0.0.1', localAddress(listener)!.port)
    const hearer = new Hearer()
    const socket = TcpSocket.connecting(connectSocket({ family: 4, mark: 0 }), address, hearer)
    t.teardown(() => socket.destroy())
    socket.write(Buffer.from('early'))
    socket.end()
    await hearer.until(() => socket.isEnded)
    const far = new BareEnd(t, libc.accept4(listener, null, null, 0))
    t.equal(String(await far.receiveAll()), 'early')
  },
)

await t.test('a connection that is refused, and one that cannot even be tried', LIMIT, async t => {
  const listener = listenTcp({ port: 0, ipv6: false })
  const { port } = localAddress(listener)!
  closeFd(listener)
  for (const [ip, code] of [
    ['127.0.0.1', 'ECONNREFUSED'],
    ['255.255.255.255', 'ENETUNREACH'],
  ] as const) {
    const hearer = new Hearer()
    const fd = connectSocket({ family: 4, mark: 0 })
    const socket = TcpSocket.connecting(fd, encodeSockaddr(ip, port), hearer)
    t.strictSame(hearer.heard, [], 'not in the middle of the call')
    await hearer.until(() => hearer.heard.length > 0)
    t.strictSame(hearer.heard, [code])
    t.ok(socket.isClosed)
  }
})

await t.test('a socket that is given away stays open, and nothing is heard of it', LIMIT, async t => {
  const { socket, hearer, far } = await pair(t)
  await settled()
  hearer.heard.length = 0
  socket.resume()
  far.send('for the next')
  const fd = socket.detach()
  t.equal(socket.detach(), -1)
  await settled()
  t.strictSame(hearer.heard, [])
  const next = new BareEnd(t, fd)
  t.equal(String(next.receive()), 'for the next')
})

await t.test(
  'an event of a descriptor that was closed is not told to who has its number now',
  LIMIT,
  async t => {
    const first = await pair(t)
    const second = await pair(t)
    const third = await fdPair()
    t.teardown(() => closeFd(third[0]))
    t.teardown(() => closeFd(third[1]))
    const fourth = await pair(t)
    await settled()
    const heir = new Hearer()
    const waiting = new Hearer()
    const port = await fullPort(t)
    const numbers = [second.socket.fd, fourth.socket.fd] as const
    first.hearer.onReadable = () => {
      first.hearer.take()
      if (second.socket.isClosed) return
      second.socket.destroy()
      fourth.socket.destroy()
      heir.socket = new TcpSocket(libc.fcntl(third[0], F_DUPFD_CLOEXEC, numbers[0]), heir)
      heir.socket.resume()
      const made = connectSocket({ family: 4, mark: 0 })
      const fd = made === numbers[1] ? made : libc.fcntl(made, F_DUPFD_CLOEXEC, numbers[1])
      if (made !== fd) closeFd(made)
      waiting.socket = TcpSocket.connecting(fd, encodeSockaddr('127.0.0.1', port), waiting)
    }
    t.teardown(() => heir.socket?.destroy())
    t.teardown(() => waiting.socket?.destroy())
    for (const { socket, far } of [first, second, fourth]) {
      socket.resume()
      far.send('now')
    }
    await first.hearer.until(() => first.hearer.text === 'now')
    t.strictSame([heir.socket!.fd, waiting.socket!.fd], numbers)
    await settled()
    t.notOk(heir.heard.includes('readable'), 'nothing has come for it')
    t.strictSame(waiting.heard, [], 'it is not connected')
  },
)

await t.test('a socket that always has something to read does not hold up another', LIMIT, async t => {
  const busy = await pair(t, new Hearer(1024))
  const quiet = await pair(t)
  busy.far.send(Buffer.alloc(MIB))
  busy.socket.resume()
  quiet.socket.resume()
  await busy.hearer.until(() => busy.hearer.heard.length > 5)
  const before = busy.hearer.heard.length
  quiet.far.send('!')
  await quiet.hearer.until(() => quiet.hearer.text === '!')
  t.ok(
    busy.hearer.heard.length - before < 8,
    `${busy.hearer.heard.length - before} reads of the other before`,
  )
})

await t.test('both directions at once, megabytes each, arrive as they were', LIMIT, async t => {
  const one = await pair(t)
  const [near, far] = await fdPair()
  closeFd(far)
  closeFd(near)
  const all = randomBytes(4 * MIB)
  one.socket.resume()
  let at = 0
  const feed = () => {
    while (at < all.length) if (!one.socket.write(all.subarray(at, (at += 100_000)))) return
    one.socket.end()
  }
  one.hearer.onDrained = feed
  feed()
  const there: Buffer[] = []
  let back = 0
  for (let isOver = false; !isOver;) {
    const piece = one.far.receive(70_000)
    if (piece?.length === 0) isOver = true
    else if (piece) there.push(piece)
    if (back < all.length) {
      const sent = libc.send(one.far.fd, all.subarray(back), Math.min(all.length - back, 70_000), 0x4000)
      if (sent > 0) back += sent
    }
    if (!piece) await new Promise(resolve => setImmediate(resolve))
  }
  while (back < all.length) {
    const sent = libc.send(one.far.fd, all.subarray(back), all.length - back, 0x4000)
    if (sent > 0) back += sent
    else await new Promise(resolve => setImmediate(resolve))
  }
  one.far.end()
  await one.hearer.until(() => one.hearer.hasEnded)
  t.ok(Buffer.concat(there).equals(all))
  t.ok(Buffer.from(one.hearer.text, 'latin1').equals(all))
})

await t.test('descriptors are given back', LIMIT, async t => {
  const before = dupFd(0)
  closeFd(before)
  for (let round = 0; round < 20; round++) {
    const { socket, far } = await pair(t)
    socket.resume()
    if (round % 2) far.reset()
    else far.close()
    socket.destroy()
  }
  const after = dupFd(0)
  closeFd(after)
  t.equal(after, before)
  await new Promise<void>(resolve => loop.afterTurn(resolve))
})
