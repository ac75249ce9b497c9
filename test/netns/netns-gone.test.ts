/** A pod's network namespace goes before anybody has said that the pod does: a sandbox that died, a CNI that was quick. */
import t from 'tap'
import { startLoad } from '../../lab/demo/clients.ts'
import { podNamed, until } from '../../lab/demo/facts.ts'
import { podLinkName } from '../../lab/net/topology.ts'
import { namespaceInode } from '../../lab/processes.ts'
import { idlePod, labFor } from '../helpers/lab.ts'
import { openFiles } from '../helpers/lab-facts.ts'

const LIMIT_MS = 20_000
const lab = await labFor(t)
const server = await podNamed(lab, 'server')

await t.test(
  'the loss is reported, nobody else notices, and nothing is left when the pod is known to be gone',
  async t => {
    await lab.addPods(idlePod('lost', 'shop', 'client', server.node))
    await lab.waitForPod('lost', ['enrolled'], LIMIT_MS)
    const lost = await podNamed(lab, 'lost')
    const agent = (await lab.status()).nodes.find(({ name }) => name === server.node)?.agent?.pid ?? 0
    const before = openFiles(agent).length
    const load = await startLoad(lab, 'client', `http://${server.ip}:8080/`, 20, 120)

    await onNode(['ip', 'link', 'delete', podLinkName(lost.uid)])
    await onNode(['ip', 'netns', 'delete', lost.netns])
    const { meshDetail } = await lab.waitForPod('lost', ['drifted'], LIMIT_MS)
    t.match(meshDetail, /is gone|has lost the address/)
    const ran = await lab.exec('client', ['curl', '-sS', '-m', '15', `http://${lost.ip}:8080/`])
    t.not(ran.code, 28, 'who calls it is told so, and does not wait')

    await lab.delPod('lost', 0)
    await until('the agent to forget it', LIMIT_MS, async () => {
      const [pods, certificates] = await Promise.all(
        ['/pods', '/certificates'].map(async path => (await lab.agentAdmin(server.node, path)).body),
      )
      return !`${pods}${certificates}`.includes(lost.uid) || undefined
    })
    await until('its descriptors to be closed', LIMIT_MS, () => openFiles(agent).length < before || undefined)
    const { failures, requests } = await load.stop()
    t.strictSame(failures, [], `${requests} connections to others on the node`)
    t.ok(namespaceInode(agent, 'net'), 'the same agent lives')
  },
)

async function onNode(argv: readonly string[]): Promise<void> {
  const ran = await lab.execOnNode(server.node, argv)
  if (ran.code !== 0) throw new Error(`${argv.join(' ')}: ${ran.stderr}`)
}
