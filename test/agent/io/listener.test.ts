import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { Listener, type Accepted } from '../../../agent/io/listener.ts'
import type { SocketAddress } from '../../../lib/address.ts'
import { closeFd, dupFd } from '../../../agent/sys/fd.ts'
import { libc } from '../../../agent/sys/libc.ts'
import { encodeSockaddr } from '../../../agent/sys/sockaddr.ts'
import { connectSocket, listenTcp } from '../../../agent/sys/socket.ts'
import { localAddress } from '../../../agent/sys/sockopt.ts'
import { settled } from '../../helpers/io.ts'
import { readAll } from '../../helpers/tcp.ts'

const SHUT_RD = 0

function listen(t: Test, accepted: Accepted, failed: (error: Error) => void = err => t.error(err)) {
  const fd = listenTcp({ port: 0, ipv6: false })
  const { port } = localAddress(fd)!
  const listener = new Listener(fd, accepted, failed)
  t.teardown(() => listener.close())
  return { listener, fd, port }
}

function dialNow(t: Test, port: number): number {
  const fd = connectSocket({ family: 4, mark: 0, keepalive: 'none' })
  t.teardown(() => closeFd(fd))
  const address = encodeSockaddr('127.0.0.1', port)
  libc.connect(fd, address, address.length)
  return fd
}

await t.test('each connection is given once, with its other end', async t => {
  const peers: SocketAddress[] = []
  const all = Promise.withResolvers<void>()
  const { port } = listen(t, (fd, peer) => {
    t.teardown(() => closeFd(fd))
    peers.push(peer)
    if (peers.length === 150) all.resolve()
  })
  const expected = Array.from({ length: 150 }, () => localAddress(dialNow(t, port))!.port)
  await all.promise
  t.strictSame(
    peers.map(peer => peer.port),
    expected,
  )
  t.ok(peers.every(peer => peer.ip === '127.0.0.1'))
})

await t.test('closed in the middle of accepting, it takes no more', async t => {
  let count = 0
  const { listener, port } = listen(t, fd => {
    closeFd(fd)
    count++
    listener.close()
    listener.close()
  })
  for (let dialled = 0; dialled < 5; dialled++) dialNow(t, port)
  await settled()
  t.equal(count, 1)
})

await t.test('the queue stays with who else has the socket', async t => {
  const { listener, fd, port } = listen(t, () => t.fail('accepted'))
  const copy = dupFd(fd)
  t.teardown(() => closeFd(copy))
  listener.close()
  dialNow(t, port)
  await settled()
  const accepted = libc.accept4(copy, null, null, 0)
  t.ok(accepted >= 0)
  closeFd(accepted)
})

await t.test('a socket that accepts nothing any more is said so now and then, not without end', async t => {
  const errors: string[] = []
  const { fd, port } = listen(
    t,
    () => t.fail('accepted'),
    err => errors.push(err.message),
  )
  libc.shutdown(fd, SHUT_RD)
  t.ok(port > 0)
  const startMs = performance.now()
  await once(AbortSignal.timeout(180), 'abort')
  const tookMs = performance.now() - startMs
  t.ok(
    errors.length >= 1 && errors.length <= 2 + tookMs / 50,
    `${errors.length} times in ${Math.round(tookMs)} ms`,
  )
  t.match(errors[0], /accept: EINVAL/)
})

await t.test('whoever hears of a failure may close the listener', async t => {
  let times = 0
  const { listener, fd } = listen(
    t,
    () => undefined,
    () => {
      times++
      listener.close()
    },
  )
  libc.shutdown(fd, SHUT_RD)
  await settled()
  t.equal(times, 1)
})

await t.test('out of descriptors it waits, and goes on when there are some', async t => {
  const script = fileURLToPath(new URL('../../helpers/io-few-descriptors.ts', import.meta.url))
  const child = spawn('sh', ['-c', 'ulimit -n 64; exec "$0" "$1"', process.execPath, script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => child.kill())
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  const sockets = Array.from({ length: 80 }, () => connect({ port: Number(line), host: '127.0.0.1' }))
  for (const socket of sockets) t.teardown(() => socket.destroy())
  t.match(String(await readAll(child.stdout as never)), /^EMFILE, then all 80\n$/)
})
