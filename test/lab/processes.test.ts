import { spawn } from 'node:child_process'
import { once } from 'node:events'
import t from 'tap'
import {
  isAlive,
  namespaceInode,
  processesIn,
  processRef,
  signalProcess,
  waitGone,
} from '../../lab/processes.ts'

await t.test('a number means a process only together with its start time', async t => {
  const child = spawn('sleep', ['infinity'], { stdio: 'ignore' })
  t.teardown(() => child.kill('SIGKILL'))
  const ref = processRef(child.pid!)!
  t.ok(isAlive(ref))
  const reused = { pid: ref.pid, startTime: ref.startTime - 1 }
  t.notOk(isAlive(reused))
  t.notOk(signalProcess(reused, 'SIGKILL'), 'another process of that number is not touched')
  t.ok(isAlive(ref))
  t.notOk(await waitGone(ref, 30))
  t.ok(signalProcess(ref, 'SIGKILL'))
  await once(child, 'exit')
  t.ok(await waitGone(ref, 1000))
  t.notOk(signalProcess(ref, 'SIGKILL'))
})

await t.test('processes are found by their namespace, the asking one left out', async t => {
  const child = spawn('sleep', ['infinity'], { stdio: 'ignore' })
  t.teardown(() => child.kill('SIGKILL'))
  const inode = namespaceInode('self', 'net')!
  const pids = processesIn('net', new Set([inode])).map(({ pid }) => pid)
  t.ok(pids.includes(child.pid!))
  t.notOk(pids.includes(process.pid))
  t.strictSame(processesIn('net', new Set([1])), [])
})
