import t from 'tap'
import { holdConnection, startLoad } from '../../lab/demo/clients.ts'
import { podNamed, until } from '../../lab/demo/facts.ts'
import type { Lab } from '../../lab/lab.ts'
import { labFor, notOpenAt } from '../helpers/lab.ts'

const lab = await labFor(t)
const server = await podNamed(lab, 'server')
const client = await podNamed(lab, 'client')

for (const [side, node, pod] of [
  ['client', client.node, 'client'],
  ['server', server.node, 'server'],
] as const)
  await t.test(
    `the ${side}'s agent is killed, and again: open connections are reset, no new one fails`,
    async t => {
      const held = await Promise.all(
        Array.from({ length: 5 }, () => holdConnection(lab, 'client', server.ip, 7000)),
      )
      const load = await startLoad(lab, 'client', `http://${server.ip}:8080/`, 40, 600)
      const kills: number[] = []
      for (let kill = 0; kill < 2; kill++) {
        await flowing(lab, node)
        await lab.killAgent(node)
        kills.push(Date.now())
        await nextAgent(lab, node)
        await lab.waitForPod(pod, ['enrolled'])
      }
      await flowing(lab, node)
      const { requests, failures, slowestMs } = await load.stop()
      t.strictSame(notOpenAt(kills, failures), [], `${requests} new connections`)
      t.comment(
        `${requests} new connections, slowest ${slowestMs} ms, ${failures.length} were open when the agent died`,
      )
      for (const { result } of held)
        t.match(await result, { how: 'reset' }, 'an open connection is reset, not ended')
    },
  )

await t.test('a killed ca-server changes nothing for those who know each other', async t => {
  const held = await holdConnection(lab, 'client', server.ip, 7000)
  const load = await startLoad(lab, 'client', `http://${server.ip}:8080/`, 40, 600)
  const before = (await lab.status()).caServer.pid
  await lab.kill('ca-server')
  await until('the next ca-server', 20_000, async () => {
    const { pid } = (await lab.status()).caServer
    return pid !== undefined && pid !== before ? true : undefined
  })
  await flowing(lab, client.node)
  const { failures } = await load.stop()
  t.strictSame(failures, [])
  t.match(await held.stop(), { how: 'closed' })
})

/** Resolves when the node's agent has carried ten more connections to their end. */
async function flowing(lab: Lab, node: string): Promise<void> {
  const ended = async () => {
    const ran = await lab.execOnNode(node, ['curl', '-sS', '-m', '2', 'http://127.0.0.1:15020/metrics'])
    const counts = ran.stdout.toString().matchAll(/^culvert_connections_total\{[^}]*\} (\d+)$/gm)
    return [...counts].reduce((sum, [, count]) => sum + Number(count), 0)
  }
  const before = await ended()
  await until('ten more connections', 20_000, async () => (await ended()) >= before + 10 || undefined)
}

async function nextAgent(lab: Lab, node: string): Promise<void> {
  await until('the next agent', 20_000, async () => {
    const agent = (await lab.status()).nodes.find(({ name }) => name === node)?.agent
    return agent?.answers || undefined
  })
}
