import { randomUUID } from 'node:crypto'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import type { Seen } from '../../lab/app/http.ts'
import { packetsOf } from '../../lab/capture/pcap.ts'
import { run, type Ran } from '../../lab/run.ts'
import { agentlessLab } from '../helpers/lab-file.ts'
import { labFor } from '../helpers/lab.ts'

const host = async () => ({
  links: Object.keys(networkInterfaces()).sort(),
  routes: (await run(['ip', 'route'])).stdout.toString(),
})
const before = await host()
const lab = await labFor(t, { file: join(t.testdir({ 'lab.yaml': agentlessLab() }), 'lab.yaml') })
const server = await lab.pod('server')
const client = await lab.pod('client')

const get = async (from: string, url: string) => {
  const ran = await lab.exec(from, ['curl', '-sS', '-g', '-m', '5', url])
  return { ...ran, seen: ran.code === 0 ? (JSON.parse(ran.stdout.toString()) as Seen) : undefined }
}
/** A number of /proc/net/snmp: a line of names, and one of values, for each protocol. */
function tcpNumber({ stdout }: Ran, name: string): number {
  const [names = [], values = []] = [...stdout.toString().matchAll(/^Tcp: (.*)$/gm)].map(([, words]) =>
    words!.split(' '),
  )
  const value = values[names.indexOf(name)]
  if (value === undefined) throw new Error(`no ${name} in ${stdout.toString()}`)
  return Number(value)
}

const urlOf = (ip: string) => `http://${ip.includes(':') ? `[${ip}]` : ip}:8080/`

await t.test('pods reach each other across nodes by their own addresses, in both families', async t => {
  for (const [at, ip] of server.ips.entries()) {
    const { seen } = await get('client', urlOf(ip))
    t.equal(seen?.pod, 'server')
    t.ok(seen?.client.replace(/^\[/, '').startsWith(client.ips[at]!), `client is ${seen?.client}`)
  }
})

await t.test('a node calls its pods by its own address, as a kubelet does', async t => {
  for (const [at, ip] of server.ips.entries()) {
    const ran = await lab.execOnNode('node-b', ['curl', '-sS', '-g', '-m', '5', urlOf(ip)])
    const { client } = JSON.parse(ran.stdout.toString()) as Seen
    t.match(client.replace('[', ''), ['10.99.0.12:', 'fd99::c]:'][at]!)
  }
})

await t.test(
  'what is not there fails at once: a closed port, a free address, a service without a mesh',
  async t => {
    // A SYN that nobody answers is sent again after a second, by the kernel's clock.
    const repeated = async () => tcpNumber(await lab.exec('client', ['cat', '/proc/net/snmp']), 'RetransSegs')
    for (const target of [`${server.ips[0]}:81`, '10.98.2.250:80', '10.97.0.10:80', '192.0.2.1:80']) {
      const before = await repeated()
      const { code } = await get('client', `http://${target}/`)
      t.equal(code, 7, `${target} is refused or unreachable`)
      t.equal(await repeated(), before, `${target} was not waited for`)
    }
  },
)

await t.test('the network of the machine itself is as it was', async t => {
  t.strictSame(await host(), before)
})

await t.test('namespaces are called as they are said to be', async t => {
  const names = (await run(['ip', 'netns', 'list'])).stdout.toString()
  for (const part of ['fabric', 'cp', 'node-a', 'node-b', 'client', 'server', 'server-2', 'old'])
    t.match(names, new RegExp(`^culvert-${lab.name}-${part}\\b`, 'm'))
})

await t.test('a program in a pod has its streams and its exit status', async t => {
  const ran = await lab.exec('client', ['sh', '-c', 'cat; echo oops >&2; exit 7'], { input: 'in\n' })
  t.match(ran, { code: 7, stderr: 'oops\n' })
  t.equal(ran.stdout.toString(), 'in\n')
  t.equal((await lab.exec('client', ['sh', '-c', 'kill -TERM $$'])).code, 143)
  t.equal((await lab.exec('client', ['no-such-program'])).code, 127)
  await t.rejects(lab.exec('nobody', ['true']), { code: 'LAB', hint: /shop\/client/ })
})

await t.test('a capture holds every packet up to the moment it is stopped', async t => {
  const capture = await lab.capture('node-a')
  const secrets = Array.from({ length: 20 }, () => randomUUID())
  for (const secret of secrets) await get('client', `${urlOf(server.ips[0]!)}${secret}`)
  const packets = [...packetsOf(await capture.stop())]
  for (const secret of secrets) {
    const requests = packets.filter(({ bytes }) => bytes.includes(`GET /${secret}`))
    t.equal(requests.length, 1)
  }
})

await t.test('a pod that comes and goes leaves no route, link or namespace', async t => {
  const links = async () =>
    (await lab.execOnNode('node-a', ['ip', '-o', 'link'])).stdout.toString().split('\n').length
  const routes = async () => (await lab.execOnNode('node-a', ['ip', 'route'])).stdout.toString()
  const [linksBefore, routesBefore] = [await links(), await routes()]
  const [added] = await lab.addPods(`
apiVersion: v1
kind: Pod
metadata: { name: web, namespace: shop, labels: { app: echo } }
spec: { nodeName: node-a, containers: [{ name: app, image: culvert.dev/lab-app }] }`)
  t.equal((await get('client', urlOf(added!.ips[0]!))).seen?.pod, 'web')
  const behind = async () => (await lab.status()).services.find(({ name }) => name === 'echo')?.endpoints
  t.ok((await behind())?.includes(added!.ips[0]!), 'its service has it')
  await lab.delPod('web')
  t.notOk((await behind())?.includes(added!.ips[0]!))
  t.equal(await links(), linksBefore)
  t.equal(await routes(), routesBefore)
  t.notMatch((await run(['ip', 'netns', 'list'])).stdout.toString(), added!.netns)
})

await t.test('pods of one name in two namespaces are told apart', async t => {
  const [added] = await lab.addPods(`
apiVersion: v1
kind: Pod
metadata: { name: client, namespace: legacy }
spec: { containers: [{ name: shell, command: [sleep, infinity] }] }`)
  t.equal(added?.netns, `culvert-${lab.name}-legacy-client`)
  await t.rejects(lab.pod('client'), { code: 'LAB', hint: 'say which: shop/client, legacy/client' })
  t.equal((await lab.pod('legacy/client')).uid, added?.uid)
})

await t.test('a container that ends is started again', async t => {
  const pidOf = async () => (await lab.status()).pods.find(({ name }) => name === 'old')?.containers[0]?.pid
  const pid = (await pidOf())!
  process.kill(-pid, 'SIGKILL')
  const deadline = Date.now() + 5000
  while ([pid, undefined].includes(await pidOf()) && Date.now() < deadline);
  t.not(await pidOf(), pid)
  t.ok(await pidOf())
})
