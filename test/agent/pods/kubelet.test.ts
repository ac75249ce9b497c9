import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Kubelet } from '../../../agent/pods/kubelet.ts'
import { quietLog } from '../../helpers/quiet-log.ts'

const OWN = '/proc/self/ns/net'

/** A process of that name that calls a server of ours and stays; gives both ends of its connection. */
async function caller(t: Test, name: string, host = '127.0.0.1') {
  const server = createServer().listen(0, host)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const dir = mkdtempSync(join(tmpdir(), 'culvert-kubelet-'))
  const program = join(dir, name)
  symlinkSync('/usr/bin/curl', program) // the kernel names a process after the file that it was told to run
  const child = spawn(program, ['-sS', `telnet://${host.includes(':') ? `[${host}]` : host}:${port}`], {
    stdio: ['pipe', 'ignore', 'inherit'],
  })
  child.stdin.on('error', () => undefined)
  t.teardown(async () => {
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    server.close()
    rmSync(dir, { recursive: true })
  })
  const [socket] = (await once(server, 'connection')) as [Socket]
  socket.on('error', () => undefined)
  const [ip, sourcePort] = [socket.remoteAddress!, socket.remotePort!]
  return { pid: child.pid!, source: { ip, port: sourcePort }, destination: { ip: host, port } }
}

for (const host of ['127.0.0.1', '::1'])
  await t.test(`a connection of the kubelet's is told from others, ${host}`, async t => {
    const kubelet = await caller(t, 'kubelet-test', host)
    const other = await caller(t, 'other', host)
    const { log, lines } = quietLog()
    const { called } = new Kubelet({ netns: OWN, names: ['kubelet-test'], log })
    t.equal(called(kubelet.source, kubelet.destination), true)
    t.equal(called(other.source, other.destination), false)
    t.equal(called(kubelet.destination, kubelet.source), false, 'the other end is not its')
    t.equal(called({ ip: host, port: 1 }, kubelet.destination), false, 'there is no such connection')
    t.strictSame(lines, [])
  })

await t.test('what has been closed since is nobody’s any more', async t => {
  await caller(t, 'kubelet-stays')
  const gone = await caller(t, 'gone')
  process.kill(gone.pid, 'SIGKILL')
  const { log, lines } = quietLog()
  const { called } = new Kubelet({ netns: OWN, names: ['kubelet-stays'], log })
  while (called(gone.source, gone.destination) !== 'closed')
    await new Promise(resolve => setImmediate(resolve))
  t.strictSame(lines, [])
})

await t.test('without a kubelet in sight nothing is told, and that is said once', async t => {
  const other = await caller(t, 'other')
  const { log, lines } = quietLog()
  const { called } = new Kubelet({ netns: OWN, names: ['no-such-name'], log })
  t.equal(called(other.source, other.destination), undefined)
  t.equal(called(other.source, other.destination), undefined)
  t.equal(lines.length, 1)
})

await t.test('a namespace that is not there tells nothing, and fails nobody', async t => {
  const kubelet = await caller(t, 'kubelet-lost')
  const { log, lines } = quietLog()
  const { called } = new Kubelet({ netns: '/no/such/file', names: ['kubelet-lost'], log })
  t.equal(called(kubelet.source, kubelet.destination), undefined)
  t.match(lines, [{ err: /no\/such\/file/ }])
})
