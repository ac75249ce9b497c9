import t, { type Test } from 'tap'
import { accessLog, httpGet, podNamed, until } from '../../lab/demo/facts.ts'
import type { LogLevel } from '../../lib/log-level.ts'
import { labFor } from '../helpers/lab.ts'
import { metricsOf, valueOf } from '../helpers/lab-facts.ts'

const COUNTED = 'culvert_connections_total{direction="outbound",reason="mtls"}'

const lab = await labFor(t)
const client = await podNamed(lab, 'client')
const server = await podNamed(lab, 'server')

async function setLevel(t: Test, level: LogLevel): Promise<void> {
  const { body } = await lab.agentAdmin(client.node, `/logging?level=${level}`, 'POST')
  t.strictSame(JSON.parse(body), { level })
}

/** Makes one connection and waits until the metrics have it. */
async function connect(): Promise<void> {
  const counted = async () => valueOf(await metricsOf(lab, client.node), COUNTED)
  const before = await counted()
  await httpGet(lab, 'client', `http://${server.ip}:8080/`)
  await until('the connection to be counted', 20_000, async () =>
    (await counted()) === before + 1 ? true : undefined,
  )
}

/** What the client's agent has logged of its own connections, once the last line is there. */
function logged(lines: number): Promise<unknown[]> {
  return until(`${lines} lines`, 20_000, () => {
    const own = accessLog(lab, client.node).filter(line => line['direction'] === 'outbound')
    return own.length >= lines ? own.map(({ level, msg }) => [level, msg]) : undefined
  })
}

await t.test(
  'the level that is set decides which lines are written, and every connection is counted',
  async t => {
    const complete = ['info', 'connection complete']
    await connect()
    t.strictSame(await logged(1), [complete])
    await setLevel(t, 'warn')
    await connect()
    await setLevel(t, 'debug')
    await connect()
    t.strictSame(await logged(3), [complete, ['debug', 'connection opened'], complete])
    await setLevel(t, 'info')
    await connect()
    t.strictSame((await logged(4)).at(-1), complete)
  },
)
