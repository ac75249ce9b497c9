import t from 'tap'
import { startLoad } from '../../lab/demo/clients.ts'
import { accessLog, httpGet, podNamed, until } from '../../lab/demo/facts.ts'
import type { Lab } from '../../lab/lab.ts'
import { labFor } from '../helpers/lab.ts'

const lab = await labFor(t)
const client = await podNamed(lab, 'client')
const server = await podNamed(lab, 'server')

await t.test(
  'rules flushed in a client pod are put back within a second, and the drift is reported',
  async t => {
    const tookMs = await flush(lab, 'client', ['-t', 'nat', '-F'])
    t.ok(tookMs < 1000, `${tookMs} ms`)
    await httpGet(lab, 'client', `http://${server.ip}:8080/`)
    const last = await until('the connection', 20_000, () => accessLog(lab, client.node).at(-1))
    t.equal(last.reason, 'mtls')
    const metrics = await lab.execOnNode(client.node, ['curl', '-sS', 'http://127.0.0.1:15020/metrics'])
    t.match(metrics.stdout.toString(), /culvert_redirect_repairs_total\{[^}]*outcome="repaired"[^}]*\} [1-9]/)
  },
)

await t.test('a strict pod lets no stranger in while its rules are flushed', async t => {
  await lab.annotate('pod/server', { 'culvert.dev/mtls': 'strict' })
  await until('strict', 20_000, async () => !(await reaches(lab, 'old', server.ip)) || undefined)
  for (const arguments_ of [['-t', 'nat', '-F'], ['-t', 'mangle', '-F'], ['-t', 'raw', '-F'], ['-F']]) {
    const stranger = await startLoad(lab, 'old', `http://${server.ip}:8080/`, 50, 600)
    const tookMs = await flush(lab, 'server', arguments_)
    t.ok(tookMs < 1000, `iptables ${arguments_.join(' ')}: back after ${tookMs} ms`)
    const { requests, failures } = await stranger.stop()
    t.equal(failures.length, requests, `none of ${requests} got in`)
    await httpGet(lab, 'client', `http://${server.ip}:8080/`)
  }
})

await t.test('the policy routing rule is put back too', async t => {
  await lab.exec('server', ['ip', 'rule', 'del', 'fwmark', '0x111/0xfff', 'pref', '32764'])
  await until('the rule', 1000, async () => {
    const rules = await lab.exec('server', ['ip', 'rule'])
    return rules.stdout.toString().includes('0x111/0xfff') || undefined
  })
  t.match(await httpGet(lab, 'client', `http://${server.ip}:8080/`), { pod: 'server' })
})

/** Takes rules away inside a pod; gives how long it took until all of them stood again, ms. */
async function flush(lab: Lab, pod: string, arguments_: readonly string[]): Promise<number> {
  const rules = async () => {
    const saved = await lab.exec(pod, ['iptables-save'])
    return saved.stdout
      .toString()
      .split('\n')
      .filter(line => line.startsWith('-A')).length
  }
  const before = await rules()
  const ran = await lab.exec(pod, ['iptables', '-w', ...arguments_])
  const flushedAt = performance.now()
  t.equal(ran.code, 0, ran.stderr)
  await until('all rules', 20_000, async () => (await rules()) >= before || undefined)
  return Math.round(performance.now() - flushedAt)
}

async function reaches(lab: Lab, from: string, ip: string): Promise<boolean> {
  return (
    (await lab.exec(from, ['curl', '-sS', '-o', '/dev/null', '-m', '2', `http://${ip}:8080/`])).code === 0
  )
}
