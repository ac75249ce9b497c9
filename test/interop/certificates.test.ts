/** A real ztunnel has its certificates from our ca-server, and none when it is not who it says it is. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { httpGet, podNamed, until } from '../../lab/demo/facts.ts'
import { logPath, nodePaths } from '../../lab/names.ts'
import { idlePod } from '../helpers/lab.ts'
import { inPod, withZtunnel } from '../helpers/ztunnel.ts'

await withZtunnel(t, {}, async (lab, start) => {
  const server = await podNamed(lab, 'server')
  const caLog = () =>
    readFileSync(logPath(lab.paths, 'ca-server'), 'utf8')
      .split('\n')
      .filter(line => line.endsWith('}'))
      .map(line => JSON.parse(line) as Readonly<Record<string, unknown>>)

  await t.test('its certificate is the one that our log says was issued to its pod', async t => {
    const ztunnel = await start('zclient')
    t.equal((await httpGet(lab, 'zclient', `http://${server.ip}:8080/`)).pod, 'server')
    const identity = 'spiffe://cluster.local/ns/shop/sa/zclient'
    const [record, ...more] = caLog().filter(
      line => line['msg'] === 'certificate issued' && line['identity'] === identity,
    )
    t.match(record, { pod: 'shop/zclient', node: 'node-z', pod_uid: (await lab.pod('zclient')).uid })
    t.strictSame(more, [], 'and only one')
    const { certificates } = await ztunnel.state()
    t.strictSame(
      certificates.map(({ identity, state }) => ({ identity, state })),
      [{ identity, state: 'Available' }],
    )
    const serial = BigInt(certificates[0]?.certChain?.[0]?.serialNumber ?? 0)
    t.equal(serial, BigInt(`0x${String(record?.['serial'])}`))
  })

  const lies = [
    {
      what: 'an identity that no pod of its node has',
      pod: 'liar',
      options: { workload: 'shop/server/server', env: { NODE_NAME: 'node-a' } },
      refused: 'there is no pod with identity spiffe://cluster.local/ns/shop/sa/server on node node-z',
    },
    {
      what: "another node's token",
      pod: 'thief',
      options: { token: nodePaths(lab.paths, 'node-a').token },
      refused: 'there is no pod with identity spiffe://cluster.local/ns/shop/sa/thief on node node-a',
    },
  ]
  for (const { what, pod, options, refused } of lies)
    await t.test(`${what}: no certificate, the reason in our log, and ztunnel carries nothing`, async t => {
      await lab.addPods(idlePod(pod, 'shop', pod, 'node-z'))
      const ztunnel = await start(pod, options)
      t.match(await inPod(lab, pod, 'say', server.ip, 7000, ''), { how: 'end', received: '' })
      const refusal = await until('the refusal', 20_000, () => caLog().find(({ err }) => err === refused))
      t.match(refusal, { level: 'warn', reason: 'pod-unknown', call: 'CreateCertificate' })
      const line = await ztunnel.connection('outbound', `${server.ip}:7000`)
      t.match(line, { level: 'error', error: /identity error: .* not permitted/ })
      t.notMatch(line['error'], /no pod with/, 'which is all that the caller hears')
    })

  await t.test('a token that is none: neither certificates nor workloads, and our log says why', async t => {
    await lab.addPods(idlePod('stranger', 'shop', 'stranger', 'node-z'))
    const token = join(t.testdir({ token: 'eyJhbGciOiJub25lIn0.e30.' }), 'token')
    const already = caLog().length
    const ztunnel = await start('stranger', { token, isHopeless: true })
    const refusal = await until('the refusal', 20_000, () =>
      caLog()
        .slice(already)
        .find(line => String(line['reason']).startsWith('token')),
    )
    t.match(refusal, { level: 'warn' })
    t.match(
      await ztunnel.log.line('that it is refused', line => /nauthenticated/.test(JSON.stringify(line))),
      {},
    )
    t.equal(await ztunnel.readiness(), 500, 'and ztunnel is not ready')
  })
})
