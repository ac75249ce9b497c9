import { execPath } from 'node:process'
import t from 'tap'
import { holdConnection, startLoad } from '../../lab/demo/clients.ts'
import { httpGet, podNamed, until, type AccessLine } from '../../lab/demo/facts.ts'
import { netnsPrefix } from '../../lab/names.ts'
import { namespaceInode, processesIn } from '../../lab/processes.ts'
import { errorCode } from '../../lib/errors.ts'
import { idlePod, labFor } from '../helpers/lab.ts'
import { commandOf, endedConnections, openFiles, targetOf, Watch } from '../helpers/lab-facts.ts'

const NODES = ['node-a', 'node-b'] as const
const CYCLES = 15
const AT_ONCE = 5
/** Agents tell their threads' counts every two seconds. */
const METRICS_MS = 2500
const lab = await labFor(t, { name: `m${process.pid}` })
const client = await podNamed(lab, 'client')
const server = await podNamed(lab, 'server')
const vip = (await lab.status()).services.find(({ name }) => name === 'echo')?.clusterIPs[0] ?? ''

/** An application that goes on as long as it is let, as one does that drains: HTTP on 8080, echo on 7000. */
const PATIENT = `process.on('SIGTERM', () => {})
const app = (request, response) => response.end(JSON.stringify({ pod: process.env.POD_NAME }, null, 1))
require('http').createServer(app).listen(8080)
require('net').createServer(socket => socket.on('error', () => {}).pipe(socket)).listen(7000)`

await t.test('a pod that drains ends under load: no new connection fails', async t => {
  await lab.addPods(endpoint('patient', [execPath, '-e', PATIENT]))
  const { ip } = await podNamed(lab, 'patient')
  await answers(ip)
  const held = await holdConnection(lab, 'client', ip, 7000)
  const service = await startLoad(lab, 'client', `http://${vip}/`, 30, 600)
  const direct = await startLoad(lab, 'client', `http://${ip}:8080/`, 20, 600)
  await carried('the pod', line => line['dst.workload'] === 'patient' && line['dst.service'] !== undefined)
  const deletedAt = Date.now()
  const deleted = lab.delPod('patient', 1)
  await until('most of its grace', 2000, () => Date.now() > deletedAt + 700 || undefined)
  const { failures: ofDirect } = await direct.stop()
  await deleted
  const { pods, failures, requests } = await service.stop()
  t.strictSame(failures, [], `${requests} new connections to the service`)
  t.ok((pods['patient'] ?? 0) > 0, 'it had its share of them')
  t.strictSame(ofDirect, [], 'it could be reached by its own address as long as it lived')
  t.match((await held.result).how, /^(?:end|reset)$/, 'what was open ends with it')
})

await t.test('a pod that ends at once takes with it what is open in it, and nothing else', async t => {
  await lab.addPods(endpoint('abrupt'))
  await answers((await podNamed(lab, 'abrupt')).ip)
  const log = new Watch(lab, client.node)
  const service = await startLoad(lab, 'client', `http://${vip}/`, 30, 600)
  await carried('the pod', line => line['dst.workload'] === 'abrupt')
  await lab.delPod('abrupt', 5)
  const { failures, requests } = await service.stop()
  const ended = await until('a line for each connection', 20_000, () => {
    const lines = log.lines({ direction: 'outbound', from: 'client' })
    return lines.length >= requests ? lines : undefined
  })
  // One that the dying application had accepted cannot be carried on by another.
  const cut = ended.filter(
    line => line['dst.workload'] === 'abrupt' && line.reason === 'mtls' && 'error' in line,
  )
  t.ok(failures.length <= cut.length, `${failures.length} of ${requests} new connections failed`)
  t.strictSame(
    ended.filter(line => 'error' in line && !cut.includes(line)),
    [],
  )
})

await t.test(
  'an address passes to a pod of another identity: nobody takes the new one for the old one',
  async t => {
    await lab.addPods(endpoint('first'))
    const first = await podNamed(lab, 'first')
    await answers(first.ip)
    const load = await startLoad(lab, 'client', `http://${first.ip}:8080/`, 30, 600)
    await carried('the first', line => line['dst.workload'] === 'first')
    await lab.delPod('first', 1)
    await lab.addPods(
      endpoint('second').replace('AccountName: server', 'AccountName: client') +
        `status: { podIPs: [{ ip: ${first.ip} }, { ip: '${first.ip6}' }] }\n`,
    )
    t.strictSame((await podNamed(lab, 'second')).ips, first.ips)
    await carried('the second', line => line['dst.workload'] === 'second' && line.reason === 'mtls')
    const { pods } = await load.stop()
    const lines = NODES.flatMap(node => endedConnections(lab, node)).filter(
      line => targetOf(line) === `${first.ip}:8080`,
    )
    for (const [pod, account] of [
      ['first', 'server'],
      ['second', 'client'],
    ] as const) {
      const its = lines.filter(line => line['dst.workload'] === pod && line.reason === 'mtls')
      t.strictSame(
        new Set(its.map(line => line['dst.identity'])),
        new Set([`spiffe://cluster.local/ns/shop/sa/${account}`]),
      )
      t.ok((pods[pod] ?? 0) > 0)
    }
    // Each answer of the second's is one that its own agent has let in under its own name.
    const inbound = await until('a line of its agent for each answer of the second', 20_000, () => {
      const its = endedConnections(lab, first.node).filter(
        line => line['direction'] === 'inbound' && line['dst.workload'] === 'second',
      )
      return its.length >= (pods['second'] ?? 0) ? its : undefined
    })
    t.comment(
      `${inbound.filter(({ reason }) => reason !== 'mtls').length} of ${inbound.length} before it was known to be in the mesh`,
    )

    const { body } = await lab.agentAdmin(first.node, '/certificates')
    t.notOk(body.includes(first.uid), 'the certificate of the first is forgotten')
    await lab.delPod('second', 0)
  },
)

await t.test(`${CYCLES} pods come and go: nothing of them is left`, async t => {
  const cycle = async (names: readonly string[]) => {
    await lab.addPods(names.map(name => idlePod(name, 'shop', 'client', 'node-a')).join('---\n'))
    for (const name of names) await httpGet(lab, name, `http://${server.ip}:8080/`)
    await Promise.all(names.map(name => lab.delPod(name, 0)))
  }
  await cycle(['warm-up'])
  // Metrics are as old as their interval, descriptors are of this moment: they fit when sessions have stayed for as long.
  let [kept, sinceMs] = ['', 0]
  await until('the last session to end', 20_000, async () => {
    const now = await Promise.all(NODES.map(sessions))
    if (now.join() !== kept) [kept, sinceMs] = [now.join(), performance.now()]
    return (now[1]! <= 2 && performance.now() - sinceMs > METRICS_MS) || undefined
  })
  const before = await remains()
  for (let round = 0; round < CYCLES / AT_ONCE; round++)
    await cycle(Array.from({ length: AT_ONCE }, (_, at) => `churn-${round}-${at}`))
  const left = async () => {
    const now = await remains()
    return Object.keys(now)
      .filter(what => now[what]! > (before[what] ?? 0))
      .map(what => `${what}: ${now[what]}`)
  }
  let last: string[] = []
  const isNothing = async () => (last = await left()).length === 0 || undefined
  await until('nothing more than before', 20_000, isNothing).catch((err: unknown) => {
    if (errorCode(err) !== 'TIMEOUT') throw err
  })
  t.strictSame(last, [], `against ${JSON.stringify(before)}`)
})

/** How many there are of what pods may leave behind: descriptors of the agents, certificates, holders, namespaces. */
async function remains(): Promise<Record<string, number>> {
  const { nodes } = await lab.status()
  const namespaces = await lab.execOnNode('node-a', ['ls', '/run/netns'])
  const found: Record<string, number> = {
    namespaces: namespaces.stdout
      .toString()
      .split('\n')
      .filter(name => name.startsWith(netnsPrefix(lab.name))).length,
  }
  for (const { name, agent } of nodes) {
    const pid = agent?.pid ?? 0
    const inode = namespaceInode(pid, 'net')
    const holders = processesIn('net', new Set(inode === undefined ? [] : [inode])).filter(
      ref => commandOf(ref.pid) === 'sleep',
    )
    found[`${name} holders`] = holders.length
    for (const path of ['/certificates', '/pods'])
      found[`${name} ${path}`] = (JSON.parse((await lab.agentAdmin(name, path)).body) as unknown[]).length
    for (const file of openFiles(pid)) {
      const kind = `${name} descriptor ${file.replace(/:\[\d+\]|\/\d+\/|[0-9a-f-]{8,}/g, '')}`
      found[kind] = (found[kind] ?? 0) + 1
    }
    // How many sessions are kept is nobody's business here.
    found[`${name} descriptor socket`]! -= await sessions(name)
  }
  return found
}

async function sessions(node: string): Promise<number> {
  const ran = await lab.execOnNode(node, ['curl', '-sS', 'http://127.0.0.1:15020/metrics'])
  return Number(/^culvert_hbone_sessions (\d+)/m.exec(ran.stdout.toString())?.[1] ?? 0)
}

/** An endpoint of the service on the server's node. */
function endpoint(name: string, command?: readonly string[]): string {
  return `apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: shop, labels: { app: echo }, annotations: { culvert.dev/lab-node: node-b } }
spec:
  serviceAccountName: server
  containers:
    - name: app
      ${command ? `command: ${JSON.stringify(command)}` : 'image: culvert.dev/lab-app'}
      ports: [{ name: http, containerPort: 8080 }, { name: echo, containerPort: 7000 }]
`
}

async function answers(ip: string): Promise<void> {
  await until(`an answer of ${ip}`, 20_000, async () => {
    const ran = await lab.exec('client', ['curl', '-sS', '-m', '3', '-o', '/dev/null', `http://${ip}:8080/`])
    return ran.code === 0 || undefined
  })
}

/** Waits for ten such connections more. */
async function carried(what: string, isSuch: (line: AccessLine) => boolean): Promise<void> {
  const count = () => endedConnections(lab, client.node).filter(isSuch).length
  const before = count()
  await until(`ten connections to ${what}`, 20_000, () => count() >= before + 10 || undefined)
}
