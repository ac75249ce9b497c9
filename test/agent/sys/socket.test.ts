import { once } from 'node:events'
import { createServer, Socket } from 'node:net'
import t, { type Test } from 'tap'
import { statFd } from '../../../agent/sys/fd.ts'
import { closeFd, connectSocket, dupFd, listenTcp } from '../../../agent/sys/socket.ts'
import {
  getOption,
  isDualStack,
  isListening,
  localAddress,
  originalDestination,
  setLinger,
  socketInode,
  SOL_TCP,
  TCP_NODELAY,
} from '../../../agent/sys/sockopt.ts'

const TCP_KEEPIDLE = 4

async function serve(t: Test): Promise<{ port: number; accepted: Promise<Socket> }> {
  const fd = listenTcp({ port: 0 })
  const { port } = localAddress(fd)!
  const server = createServer({ allowHalfOpen: true })
  t.teardown(() => server.close())
  server.listen({ fd })
  await once(server, 'listening')
  const accepted = once(server, 'connection').then(([socket]) => {
    const connection = socket as Socket
    connection.on('error', () => undefined)
    t.teardown(() => connection.destroy())
    return connection
  })
  return { port, accepted }
}

async function connect(t: Test, family: 4 | 6, port: number): Promise<{ socket: Socket; fd: number }> {
  const fd = connectSocket({ family, mark: 0 })
  const socket = new Socket({ fd, allowHalfOpen: true })
  t.teardown(() => socket.destroy())
  socket.connect({ host: family === 4 ? '127.0.0.1' : '::1', port })
  await once(socket, 'connect')
  return { socket, fd }
}

await t.test(
  'a listener takes both families, and what is accepted inherits keepalive and no delay',
  async t => {
    for (const family of [4, 6] as const) {
      const { port, accepted } = await serve(t)
      const { socket, fd } = await connect(t, family, port)
      t.equal(getOption(fd, SOL_TCP, TCP_NODELAY, 'TCP_NODELAY'), 1)
      const peer = await accepted
      const peerFd = (peer as unknown as { _handle: { fd: number } })._handle.fd
      t.equal(getOption(peerFd, SOL_TCP, TCP_NODELAY, 'TCP_NODELAY'), 1)
      t.equal(getOption(peerFd, SOL_TCP, TCP_KEEPIDLE, 'TCP_KEEPIDLE'), 180)
      socket.end('over')
      const [chunk] = (await once(peer, 'data')) as [Buffer]
      t.equal(chunk.toString(), 'over')
    }
  },
)

await t.test('a listener without IPv6 is on 0.0.0.0', async t => {
  const fd = listenTcp({ port: 0, ipv6: false })
  t.teardown(() => closeFd(fd))
  t.equal(localAddress(fd)!.ip, '0.0.0.0')
  t.notOk(isDualStack(fd))
  t.ok(isListening(fd, localAddress(fd)!.port))
  t.notOk(isListening(fd, 1))
})

await t.test('a port that is taken is an error that says so, and leaves no descriptor behind', async t => {
  const fd = listenTcp({ port: 0 })
  t.teardown(() => closeFd(fd))
  const { port } = localAddress(fd)!
  t.throws(() => listenTcp({ port }), {
    code: 'SYSCALL',
    message: `bind to port ${port}: EADDRINUSE (address already in use)`,
  })
  const next = dupFd(fd)
  closeFd(next)
  t.throws(() => listenTcp({ port }))
  const again = dupFd(fd)
  t.equal(again, next)
  closeFd(again)
})

await t.test('a source address of the other family is refused before any call', async t => {
  t.throws(() => connectSocket({ family: 4, mark: 0, sourceIp: 'fd00::1' }), {
    code: 'ADDRESS',
    message: 'source address fd00::1 is not IPv4',
  })
})

await t.test('with linger 0 a close is a reset, without it an end', async t => {
  for (const [seconds, outcome] of [
    [0, 'ECONNRESET'],
    [undefined, 'end'],
  ] as const) {
    const { port, accepted } = await serve(t)
    const { socket, fd } = await connect(t, 4, port)
    const peer = await accepted
    const ended = new Promise(resolve => {
      peer.once('end', () => resolve('end'))
      peer.once('error', (err: NodeJS.ErrnoException) => resolve(err.code))
      peer.resume()
    })
    setLinger(fd, 0)
    setLinger(fd, seconds)
    socket.destroy()
    t.equal(await ended, outcome)
  }
})

await t.test(
  'a closed descriptor: linger lets it be, questions say undefined, close is an error',
  async t => {
    const fd = listenTcp({ port: 0 })
    closeFd(fd)
    setLinger(fd, 0)
    t.equal(localAddress(fd), undefined)
    t.equal(originalDestination(fd), undefined)
    t.notOk(isListening(fd, 1))
    t.throws(() => closeFd(fd), { code: 'SYSCALL', message: `close(${fd}): EBADF (bad file descriptor)` })
  },
)

await t.test('a copy of a descriptor is the same socket', async t => {
  const fd = listenTcp({ port: 0 })
  const copy = dupFd(fd)
  t.equal(socketInode(copy), socketInode(fd))
  closeFd(fd)
  t.equal(statFd(copy).isSocket(), true)
  closeFd(copy)
})
