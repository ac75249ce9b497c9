import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'
import { Socket } from 'node:net'
import t, { type Test } from 'tap'
import {
  openMemoryFile,
  openPipe,
  programPath,
  signalChild,
  startChild,
  type ChildOptions,
} from '../../../agent/sys/children.ts'
import { closeFd } from '../../../agent/sys/fd.ts'
import { readAll } from '../../helpers/tcp.ts'

const SH = '/bin/sh'

const alive = setInterval(() => undefined, 1000)
t.teardown(() => clearInterval(alive))

function start(t: Test, script: string, more: Partial<ChildOptions> = {}) {
  const input = openMemoryFile('input')
  writeSync(input, 'what it was given\n', 0)
  const output = openPipe()
  const { promise: ended, resolve: onExit } = Promise.withResolvers<number>()
  const fds = [input, output.write, output.write]
  const pid = startChild({ path: SH, argv: ['sh', '-c', script], env: { A: 'b' }, fds, onExit, ...more })
  closeFd(input)
  closeFd(output.write)
  const socket = new Socket({ fd: output.read, readable: true, writable: false })
  socket.on('error', () => undefined)
  t.teardown(() => socket.destroy())
  return { pid, ended, said: readAll(socket) }
}

await t.test('a program gets its words, its variables and its descriptors, and no others', async t => {
  const kept = openSync('/dev/null', 'r')
  t.teardown(() => closeSync(kept))
  const { ended, said } = start(t, 'read line; echo "$0 $1 $A $HOME|$line"; ls /proc/self/fd', {
    argv: ['sh', '-c', 'read line; echo "$0 $1 $A $HOME|$line"; ls /proc/self/fd', 'zero', 'eins ü'],
  })
  t.equal(await ended, 0)
  const [words, ...fds] = (await said).toString().trim().split('\n')
  t.match(words, /^zero eins ü b \|/)
  t.strictSame(fds.map(Number).slice(0, 3), [0, 1, 2])
  t.ok(fds.length <= 4, 'what lists them has opened one more')
})

await t.test('its status is told, and the signal that ended it', async t => {
  t.equal(await start(t, 'exit 7').ended, 7)
  const { pid, ended } = start(t, 'kill -STOP $$')
  signalChild(pid, 'SIGKILL')
  t.equal(await ended, -9)
  signalChild(pid, 'SIGKILL') // it has ended: nothing, and nobody else is hit
})

await t.test('many at once, and beside children of Node', async t => {
  const others = Array.from({ length: 5 }, () => once(spawn('true'), 'exit'))
  const ended = Array.from({ length: 30 }, (_, at) => start(t, `exit ${at}`).ended)
  t.strictSame(
    await Promise.all(ended),
    Array.from({ length: 30 }, (_, at) => at),
  )
  await Promise.all(others)
  t.equal(process.listenerCount('SIGCHLD'), 0)
})

await t.test('one that is to outlive us has a session of its own, at the root', async t => {
  const { pid, ended } = start(t, 'read line; kill -STOP $$', { detached: true })
  const [, , , , , session] = readFileSync(`/proc/${pid}/stat`, 'latin1').split(' ')
  t.equal(Number(session), pid)
  signalChild(pid, 'SIGKILL')
  await ended
})

await t.test('what cannot be started is an error that names it', t => {
  const nowhere = {
    path: '/nowhere/at/all',
    argv: ['all'],
    env: {},
    fds: [],
    onExit: () => t.fail('it never was'),
  }
  t.throws(() => startChild(nowhere), { code: 'SYSCALL', message: /start \/nowhere\/at\/all: ENOENT/ })
  t.equal(process.listenerCount('SIGCHLD'), 0)
  t.equal(programPath('no-such-program'), undefined)
  t.match(programPath('sh'), /^\/.*\/sh$/)
  t.end()
})
