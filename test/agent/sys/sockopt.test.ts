import { openSync, closeSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { closeFd, tryLockFile } from '../../../agent/sys/fd.ts'
import { localAddress, peerAddress, setLinger, socketError } from '../../../agent/sys/sockopt.ts'
import { fdPair } from '../../helpers/io.ts'

await t.test('each end of a connection is the other’s peer, and a closed one has none', async t => {
  const [near, far] = await fdPair()
  t.strictSame(peerAddress(near), localAddress(far))
  t.strictSame(peerAddress(far), localAddress(near))
  setLinger(far, 0)
  closeFd(far)
  t.equal(peerAddress(near), undefined)
  t.not(socketError(near), 0)
  closeFd(near)
  t.equal(peerAddress(near), undefined)
  setLinger(near, 0) // what is closed is left alone
})

await t.test('a file is locked by one at a time', t => {
  const path = join(t.testdir({ lock: '' }), 'lock')
  const [one, other] = [openSync(path, 'r'), openSync(path, 'r')]
  t.ok(tryLockFile(one))
  t.notOk(tryLockFile(other))
  closeSync(one)
  t.ok(tryLockFile(other))
  closeSync(other)
  t.throws(() => tryLockFile(-1), { code: 'SYSCALL' })
  t.end()
})
