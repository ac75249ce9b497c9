import { readFileSync } from 'node:fs'
import t from 'tap'
import { holdConnection, startLoad } from '../../lab/demo/clients.ts'
import { podNamed, until } from '../../lab/demo/facts.ts'
import { logPath } from '../../lab/names.ts'
import { labFor } from '../helpers/lab.ts'
import { endedConnections } from '../helpers/lab-facts.ts'

const lab = await labFor(t)
const server = await podNamed(lab, 'server')
const client = await podNamed(lab, 'client')

for (const node of [client.node, server.node])
  await t.test(
    `the agent of ${node} is replaced: no new connection fails, open ones are drained`,
    async t => {
      const short = await holdConnection(lab, 'client', server.ip, 7000)
      const long = await holdConnection(lab, 'client', server.ip, 7000)
      const load = await startLoad(lab, 'client', `http://${server.ip}:8080/`, 40, 600)
      const replaced = lab.replaceAgent(node)
      await until('the old agent to drain', 20_000, async () => {
        const agent = (await lab.status()).nodes.find(({ name }) => name === node)?.agent
        return (agent?.draining ?? 0) > 0 || undefined
      })
      t.match(await short.stop(), { how: 'closed' }, 'what ends within the drain period is not cut')
      await replaced
      const { requests, failures } = await load.stop()
      t.strictSame(failures, [], `${requests} new connections`)
      t.match(await long.result, { how: 'reset' }, 'what is still open at its end is reset')
      const lines = readFileSync(logPath(lab.paths, `agent-${node}`), 'utf8').split('\n')
      const cut = lines.filter(line => line.includes('connection cut at the end of the drain period'))
      t.ok(cut.length >= 1, 'and named')
      const ended = endedConnections(lab, node).filter(line => line['error_code'] === 'CUT')
      t.equal(ended.length, cut.length, 'and has its line in the access log')
      await lab.waitForPod('client', ['enrolled'])
    },
  )
