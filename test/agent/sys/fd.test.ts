import { execFileSync } from 'node:child_process'
import t from 'tap'
import { closeFd, descriptorLimit, dupFd } from '../../../agent/sys/fd.ts'

await t.test('the limit of descriptors is the one that children inherit', t => {
  const shell = execFileSync('sh', ['-c', 'ulimit -n'], { encoding: 'utf8' }).trim()
  t.equal(String(descriptorLimit()), shell === 'unlimited' ? 'Infinity' : shell)
  t.end()
})

await t.test('a descriptor is closed once', t => {
  const fd = dupFd(1)
  t.ok(fd > 2)
  closeFd(fd)
  t.throws(() => closeFd(fd), { code: 'SYSCALL', message: /EBADF/ })
  t.end()
})
