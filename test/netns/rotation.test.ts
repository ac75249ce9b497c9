import t from 'tap'
import { holdConnection, startLoad } from '../../lab/demo/clients.ts'
import { podNamed, serialOf, until } from '../../lab/demo/facts.ts'
import { labFor } from '../helpers/lab.ts'

await t.test(
  'certificates of 20 seconds are renewed under load: no connection fails, none that is open is touched',
  async t => {
    const lab = await labFor(t, { certTtl: '20s' })
    const pods = [await podNamed(lab, 'client'), await podNamed(lab, 'server')]
    const server = pods[1]!
    const before = await Promise.all(pods.map(pod => serialOf(lab, pod)))
    const held = await holdConnection(lab, 'client', server.ip, 7000)
    const load = await startLoad(lab, 'client', `http://${server.ip}:8080/`, 20, 600)
    const renewed = await until('a new certificate at both ends', 18_000, async () => {
      const now = await Promise.all(pods.map(pod => serialOf(lab, pod)))
      return now.every((serial, at) => serial !== before[at]) ? now : undefined
    })
    await until('a second renewal at one end', 18_000, async () => {
      const now = await Promise.all(pods.map(pod => serialOf(lab, pod)))
      return now.some((serial, at) => serial !== renewed[at]) || undefined
    })
    const { requests, failures } = await load.stop()
    t.strictSame(failures, [], `${requests} new connections`)
    const { how, echoed } = await held.stop()
    t.equal(how, 'closed', 'the connection that was open is the same one')
    t.ok(echoed > 300, `${echoed} lines came back on it`)
  },
)
