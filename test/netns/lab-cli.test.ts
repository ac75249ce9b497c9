import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t from 'tap'
import { packetsOf } from '../../lab/capture/pcap.ts'
import { until } from '../../lab/demo/facts.ts'
import { downLab, openLab } from '../../lab/lab.ts'
import { signalProcess, waitGone } from '../../lab/processes.ts'
import type { LabStatus } from '../../lab/status.ts'
import { CULVERT, culvert } from '../helpers/culvert.ts'
import { agentlessLab, sleeper } from '../helpers/lab-file.ts'

const dir = t.testdir({ 'lab.yaml': agentlessLab(), 'pod.yaml': sleeper('filed') })
const file = join(dir, 'lab.yaml')
const name = `c${process.pid}`
const onLab = (verb: string, ...words: string[]) => culvert(['lab', verb, '--name', name, ...words])

t.teardown(() => downLab(name))

await t.test('up --detach comes back when all is ready, and says how to go on', async t => {
  const { code, stdout, stderr } = await onLab('up', '--file', file, '--detach')
  t.equal(code, 0, stderr)
  t.match(stdout, /is up in .* s: 2 nodes, 4 pods, 1 service\n/)
  t.match(stdout, `culvert lab exec --name ${name} client -- curl -s http://10.98.2.2:8080/`)
  t.match(stderr, /✔ network \d+ ms\n✔ ca-server and agents \d+ ms\n✔ pods \d+ ms\n/)
  t.match(await onLab('up', '--detach'), { code: 1, stderr: /already up\nhint: .*lab down/ })
})

await t.test('exec passes streams and the exit status through', async t => {
  t.match(await onLab('exec', 'client', '--', 'sh', '-c', 'echo out; echo err >&2; exit 5'), {
    code: 5,
    stdout: 'out\n',
    stderr: 'err\n',
  })
  t.match(await onLab('exec', 'shop/client', 'curl', '-s', 'http://10.98.2.2:8080/x'), {
    code: 0,
    stdout: /"path": "\/x"/,
  })
  t.match(await culvert(['lab', 'exec', '--name', name, 'client', '--', 'cat'], { input: 'in' }), {
    stdout: 'in',
  })
  t.match(await onLab('exec', 'client', '--', 'no-such-program'), { code: 127 })
  t.match(await onLab('exec', 'nobody', '--', 'true'), {
    code: 1,
    stderr: /no pod 'nobody'\nhint: it has shop\/client/,
  })
})

await t.test('exec passes signals on', async t => {
  const child = spawn(
    CULVERT,
    [
      'lab',
      'exec',
      '--name',
      name,
      'client',
      '--',
      'sh',
      '-c',
      'trap "exit 42" TERM; echo ready; while :; do sleep 0.05; done',
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  await once(createInterface({ input: child.stdout }), 'line')
  child.kill('SIGTERM')
  t.strictSame(await once(child, 'exit'), [42, null])
})

await t.test('status shows nodes, pods and services, as tables or as JSON', async t => {
  const { stdout } = await onLab('status')
  t.match(stdout, /node-a +10\.99\.0\.11 fd99::b +10\.98\.1\.0\/24 fd98:1::\/64 +not ours/)
  t.match(stdout, /shop +server +node-b +10\.98\.2\.2 fd98:2::2 +ready +no-agent/)
  t.match(stdout, /shop +echo +10\.97\.0\.10 fd97::a +80→http 7000→echo/)
  const status = JSON.parse((await onLab('status', '--json')).stdout) as LabStatus
  t.strictSame(
    status.pods.map(pod => pod.name),
    ['client', 'server', 'server-2', 'old'],
  )
  t.ok(status.caServer.pid)
})

await t.test('pods are added by options or from a file, and deleted', async t => {
  t.match(await onLab('add-pod', 'web', '--namespace', 'shop', '--node', 'node-b', '--label', 'app=echo'), {
    code: 0,
    stdout: /^Pod shop\/web is ready on node-b: 10\.98\.2\.\d+ fd98:2::/,
  })
  t.match(await onLab('add-pod', 'shell', '--', 'sleep', 'infinity'), {
    stdout: /^Pod default\/shell is ready/,
  })
  t.match(await onLab('add-pod', '-f', join(dir, 'pod.yaml')), { stdout: /^Pod default\/filed is ready/ })
  t.match(await onLab('add-pod', 'web', '--namespace', 'nowhere'), { code: 1, stderr: /no such Namespace/ })
  t.match(await onLab('status'), { stdout: /10\.98\.2\.2 10\.98\.1\.3 10\.98\.2\.4/ })
  for (const pod of ['web', 'shell', 'filed'])
    t.match(await onLab('del-pod', pod), { stdout: `pod ${pod} is gone\n` })
  t.equal((JSON.parse((await onLab('status', '--json')).stdout) as LabStatus).pods.length, 4)
})

await t.test('annotations are set and removed', async t => {
  const cluster = () => readFileSync(openLab(name).paths.cluster, 'utf8')
  t.match(await onLab('annotate', 'pod/server', 'culvert.dev/mtls=strict'), { code: 0 })
  t.match(cluster(), /culvert\.dev\/mtls: strict/)
  t.match(await onLab('annotate', 'pod/server', 'culvert.dev/mtls-'), { code: 0 })
  t.notMatch(cluster(), /culvert\.dev\/mtls: strict/)
  t.match(await onLab('annotate', 'namespace/nope', 'a=b'), { code: 1, stderr: /there is no Namespace nope/ })
})

await t.test('logs of parts and pods are found by their names', async t => {
  t.match(await onLab('logs', 'server'), { code: 0, stdout: /^listening on 8080/ })
  t.match((await onLab('logs', 'ca-server')).stdout, /ca-server ready/)
  t.match((await onLab('logs')).stdout, /^server \| listening on 8080/m)
  t.match(await onLab('logs', 'nope'), { code: 1, stderr: /hint: there are .*ca-server/ })
  const child = spawn(CULVERT, ['lab', 'logs', '--name', name, 'server', '-f'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const lines = createInterface({ input: child.stdout })
  await once(lines, 'line')
  writeFileSync(join(openLab(name).paths.logs, 'server.log'), 'one more\n', { flag: 'a' })
  t.strictSame(await once(lines, 'line'), ['one more'])
  child.kill()
})

await t.test('pcap writes what is on the link, and shows it through tcpdump', async t => {
  const start = async (whole: readonly RegExp[], ...words: string[]) => {
    const child = spawn(CULVERT, ['lab', 'pcap', '--name', name, ...words], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const said: Buffer[] = []
    child.stdout.on('data', (chunk: Buffer) => said.push(chunk))
    // It begins at some moment: the first request of which all is seen came after that.
    const isSeen = () => whole.every(each => each.test(Buffer.concat(said).toString('latin1')))
    for (const deadline = Date.now() + 20_000; !isSeen() && Date.now() < deadline;)
      await onLab('exec', 'client', '--', 'curl', '-s', 'http://10.98.2.2:8080/')
    child.kill('SIGINT')
    const [code] = (await once(child, 'close')) as [number]
    return { code, stdout: Buffer.concat(said) }
  }
  const syn = /10\.98\.1\.2\.\d+ > 10\.98\.2\.2\.8080: Flags \[S\]/
  const shown = await start([syn, /GET \/ HTTP\/1\.1/], '--', '-A', 'tcp port 8080')
  t.equal(shown.code, 0)
  t.match(shown.stdout.toString(), syn)
  t.match(shown.stdout.toString(), 'GET / HTTP/1.1')
  const written = await start([/GET \/ HTTP\/1\.1/], '-w', '-')
  t.equal(written.code, 0)
  t.ok([...packetsOf(written.stdout)].some(({ bytes }) => bytes.includes('GET / HTTP/1.1')))
  t.match(await onLab('pcap', '--link', 'node-x'), { code: 1, stderr: /hint: it has node-a, node-b/ })
})

await t.test('a killed part is started again', async t => {
  const { stdout } = await onLab('kill', 'ca-server')
  t.match(stdout, /^ca-server \(pid \d+\) got SIGKILL\n$/)
  const before = Number(/\d+/.exec(stdout)![0])
  const again = await until('the next ca-server', 20_000, async () => {
    const { caServer } = await openLab(name).status()
    return caServer.pid !== undefined && caServer.pid !== before ? caServer : undefined
  })
  t.match(again, { lastExit: 'SIGKILL', restarts: 1 })
  t.match(await onLab('kill', 'agent-node-a'), { code: 1, stderr: /hint: it has ca-server/ })
})

await t.test('down leaves nothing', async t => {
  t.match(await onLab('down'), { code: 0, stdout: `lab '${name}' is down\n` })
  t.match(await onLab('status'), { code: 1 })
})

for (const [how, signal] of [
  ['Ctrl-C', 'SIGINT'],
  ['SIGTERM', 'SIGTERM'],
] as const)
  await t.test(`up in the foreground stays until ${how} and then takes all down`, async t => {
    const child = spawn(CULVERT, ['lab', 'up', '--name', name, '--file', file], {
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    for await (const line of createInterface({ input: child.stdout })) if (line.includes('Ctrl-C')) break
    const { supervisor } = openLab(name)
    child.kill(signal)
    t.strictSame(await once(child, 'exit'), [0, null])
    t.ok(await waitGone(supervisor, 0))
    t.equal(await downLab(name), undefined, 'nothing was left')
  })

await t.test('when the supervisor dies, the command in the foreground cleans up and says so', async t => {
  const child = spawn(CULVERT, ['lab', 'up', '--name', name, '--file', file], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  for await (const line of createInterface({ input: child.stdout })) if (line.includes('Ctrl-C')) break
  signalProcess(openLab(name).supervisor, 'SIGKILL')
  t.strictSame(await once(child, 'exit'), [1, null])
  t.match(said, /the supervisor of lab .* has died; what it left is cleaned up/)
  t.equal(await downLab(name), undefined)
})
