/** A real ztunnel that asks the ca-server for what its pod talks to, when it does, and holds nothing else. */
import t from 'tap'
import { httpGet, podNamed, until } from '../../lab/demo/facts.ts'
import { Watch } from '../helpers/lab-facts.ts'
import { withZtunnel, type Ztunnel, type ZtunnelState } from '../helpers/ztunnel.ts'

await withZtunnel(t, {}, async (lab, start) => {
  const [server, zserver] = await Promise.all([podNamed(lab, 'server'), podNamed(lab, 'zserver')])
  const service = (await lab.status()).services.find(({ name }) => name === 'echo')!
  const [calls] = await Promise.all([start('zclient', { env: { XDS_ON_DEMAND: 'true' } }), start('zserver')])
  await lab.waitForPod('server', ['enrolled']) // nothing tells this ztunnel beforehand
  const log = new Watch(lab, 'node-a')

  await t.test('it knows the pods of its node, and no other', async t => {
    await knows(calls, 'its neighbour', state => names(state).includes('zserver'))
    const state = await calls.state()
    t.strictSame(names(state), ['zclient', 'zserver'])
    t.strictSame(state.services, [])
  })

  await t.test(
    'its first connection to a pod is carried, when the ca-server has told of the pod',
    async t => {
      t.equal((await httpGet(lab, 'zclient', `http://${server.ip}:8080/`)).pod, 'server')
      t.match(await log.next({ from: 'zclient', to: `${server.ip}:8080` }), { reason: 'mtls' })
      t.strictSame(names(await calls.state()), ['server', 'zclient', 'zserver'])
    },
  )

  await t.test(
    'an address that nobody has is answered, too: the connection goes where it was going',
    async t => {
      const [ip] = (await lab.status()).nodes.find(({ name }) => name === 'node-a')!.ips
      t.match((await lab.exec('zclient', ['curl', '-sS', '-m', '5', `http://${ip}:1/`])).stderr, /./)
      t.match(await calls.log.line('the end', line => line['dst.addr'] === `${ip}:1`), {
        direction: 'outbound',
      })
    },
  )

  await t.test('the address of a service leads to all of its endpoints', async t => {
    const pods = new Set<string>()
    const both = async () => {
      pods.add((await httpGet(lab, 'zclient', `http://${service.clusterIPs[0]}/`)).pod)
      return pods.size > 1 || undefined
    }
    await until('both servers', 10_000, both)
    t.strictSame([...pods].sort(), ['server', 'zserver'])
  })

  await t.test('what is held is followed: a pod leaves the mesh, and is back in it', async t => {
    for (const [mesh, protocol] of [
      ['disabled', 'TCP'],
      [null, 'HBONE'],
    ] as const) {
      await lab.annotate('pod/server', { 'culvert.dev/mesh': mesh })
      await lab.waitForPod('server', [mesh === null ? 'enrolled' : 'not-enrolled'])
      await knows(calls, protocol, ({ workloads }) =>
        workloads.some(each => each.name === 'server' && each.protocol === protocol),
      )
    }
    t.equal((await httpGet(lab, 'zclient', `http://${server.ip}:8080/`)).pod, 'server')
  })

  await t.test('it is told what it holds when the ca-server comes back', async t => {
    await lab.stopCaServer()
    t.equal((await httpGet(lab, 'zclient', `http://${server.ip}:8080/`)).pod, 'server')
    await lab.annotate('pod/server', { 'culvert.dev/mesh': 'disabled' })
    await lab.startCaServer()
    await knows(calls, 'the change', ({ workloads }) =>
      workloads.some(each => each.name === 'server' && each.protocol === 'TCP'),
    )
    t.equal((await httpGet(lab, 'zclient', `http://${zserver.ip}:8080/`)).pod, 'zserver')
  })
})

function names({ workloads }: ZtunnelState): string[] {
  return workloads.map(({ name }) => name).sort()
}

async function knows(ztunnel: Ztunnel, what: string, isSo: (state: ZtunnelState) => boolean): Promise<void> {
  await until(`${what} in ztunnel`, 15_000, async () => isSo(await ztunnel.state()) || undefined)
}
