import { spawn } from 'node:child_process'
import { once } from 'node:events'
import t from 'tap'
import { pidfdGetfd, pidfdKill, pidfdOpen } from '../../../agent/sys/pidfd.ts'
import { closeFd, listenTcp } from '../../../agent/sys/socket.ts'
import { socketInode } from '../../../agent/sys/sockopt.ts'

await t.test('a socket is copied out of another process, which then is ended', async t => {
  const listener = listenTcp({ port: 0 })
  const inode = socketInode(listener)
  const child = spawn('sleep', ['600'], { stdio: ['ignore', 'ignore', 'ignore', listener] })
  await once(child, 'spawn')
  closeFd(listener)
  const pidfd = pidfdOpen(child.pid!)!
  t.teardown(() => closeFd(pidfd))
  const copy = pidfdGetfd(pidfd, 3)
  t.equal(socketInode(copy), inode)
  closeFd(copy)
  t.throws(() => pidfdGetfd(pidfd, 99), { code: 'SYSCALL', message: /EBADF/ })
  const exited = once(child, 'exit')
  t.equal(pidfdKill(pidfd), true)
  t.strictSame(await exited, [null, 'SIGKILL'])
  t.equal(pidfdKill(pidfd), false)
  t.equal(pidfdOpen(child.pid!), undefined)
})
