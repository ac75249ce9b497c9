/** One end is replaced or ends while the other is busy. Ours says GOAWAY, and is replaced without a gap. */
import t from 'tap'
import { holdConnection, startLoad } from '../../lab/demo/clients.ts'
import { podNamed, until } from '../../lab/demo/facts.ts'
import { Watch } from '../helpers/lab-facts.ts'
import type { LogLine } from '../helpers/process-log.ts'
import { withZtunnel } from '../helpers/ztunnel.ts'

/** Of the connections that a ztunnel opens within the milliseconds in which it hears that a session ends. */
const MOST_LATE = 5

await withZtunnel(t, {}, async (lab, start) => {
  const [server, zserver] = await Promise.all([podNamed(lab, 'server'), podNamed(lab, 'zserver')])
  const calls = await start('zclient')
  const ztunnel = await start('zserver', {
    env: { CONNECTION_TERMINATION_DEADLINE: '1s', RUST_LOG: 'info,access=debug' },
  })

  await t.test(
    "our agent is replaced under a ztunnel's load, and under load to one: no new connection fails by our doing",
    async t => {
      const short = await holdConnection(lab, 'zclient', server.ip, 7000)
      const long = await holdConnection(lab, 'zclient', server.ip, 7000)
      const loads = await Promise.all([
        startLoad(lab, 'zclient', `http://${server.ip}:8080/`, 40, 600),
        startLoad(lab, 'client', `http://${zserver.ip}:8080/`, 40, 600),
      ])
      const replaced = lab.replaceAgent('node-a')
      await until('the old agent to drain', 20_000, async () => {
        const agent = (await lab.status()).nodes.find(({ name }) => name === 'node-a')?.agent
        return (agent?.draining ?? 0) > 0 || undefined
      })
      t.match(await short.stop(), { how: 'closed' }, 'what ends within the drain period is not cut')
      await replaced
      const [theirs, ours] = await Promise.all(loads.map(load => load.stop()))
      t.strictSame(ours!.failures, [], `${ours!.requests} new connections to a ztunnel`)
      // For a moment ztunnel gives new streams to a session that it has had a GOAWAY on, and tries no other. Ours does.
      const late = /connection error received: not a result of an error/
      const given = calls.log.lines.filter(line => late.test(String(line['error'])))
      t.ok(
        theirs!.failures.length <= given.length,
        `${theirs!.failures.length} of ${theirs!.requests} of a ztunnel's failed`,
      )
      t.ok(theirs!.failures.length <= MOST_LATE, 'and they are few')
      // We reset what is still open then; ztunnel may make an end of that.
      t.match((await long.result).how, /^(reset|end)$/)
    },
  )

  await t.test(
    'a ztunnel that ends cuts what is open to it: our application gets a reset, never an end',
    async t => {
      const log = new Watch(lab, 'node-a')
      const to = `${zserver.ip}:7000`
      const held = await holdConnection(lab, 'client', zserver.ip, 7000)
      const isOpen = (line: LogLine) =>
        line['message'] === 'connection opened' && line['dst.hbone_addr'] === to
      await ztunnel.log.line('that the tunnel stands', isOpen)
      await ztunnel.log.stop('SIGTERM')
      t.match(await held.result, { how: 'reset', error: 'ECONNRESET' })
      const line = await log.next({ direction: 'outbound', to })
      t.match(line, { level: 'error', reason: 'mtls' })
      t.comment(`our log: ${String(line['error'])}`)
    },
  )
})
