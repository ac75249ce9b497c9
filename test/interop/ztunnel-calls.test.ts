/** A real ztunnel as the client of our inbound: its pod talks to one behind a Culvert agent, with our certificates. */
import t from 'tap'
import { httpGet, podNamed } from '../../lab/demo/facts.ts'
import { formatAddress } from '../../lib/address.ts'
import { Watch } from '../helpers/lab-facts.ts'
import { inPod, withZtunnel } from '../helpers/ztunnel.ts'

const ZCLIENT = 'spiffe://cluster.local/ns/shop/sa/zclient'
const SERVER = 'spiffe://cluster.local/ns/shop/sa/server'

await withZtunnel(t, {}, async (lab, start) => {
  const client = await podNamed(lab, 'zclient')
  const server = await podNamed(lab, 'server')
  const ztunnel = await start('zclient')
  const log = new Watch(lab, 'node-a')

  for (const [family, from, to] of [
    ['IPv4', client.ip, server.ip],
    ['IPv6', client.ip6, server.ip6],
  ] as const) {
    const at = (port: number) => formatAddress(to, port)
    await t.test(
      `${family}: an HTTP request is answered over mTLS, and the server sees the client`,
      async t => {
        log.forget()
        const seen = await httpGet(lab, 'zclient', `http://${at(8080)}/`)
        t.equal(seen.pod, 'server')
        t.equal(seen.client.replace(/:\d+$/, ''), at(0).includes('[') ? `[${from}]` : from)
        t.match(await log.next({ direction: 'inbound', to: at(8080) }), {
          reason: 'mtls',
          'src.identity': ZCLIENT,
          'src.workload': 'zclient',
          'dst.identity': SERVER,
          'dst.addr': at(15008),
        })
        t.match(await ztunnel.connection('outbound', at(8080)), {
          level: 'info',
          'src.identity': ZCLIENT,
          'dst.identity': SERVER,
          'dst.addr': at(15008),
        })
      },
    )

    await t.test(
      `${family}: 64 MiB arrive as they were sent, and the answer after the client's end too`,
      async t => {
        const { how, isSame } = await inPod(lab, 'zclient', 'upload', to, 7002, 64 * 1024 * 1024)
        t.strictSame({ how, isSame }, { how: 'end', isSame: true })
        const got = await lab.exec('zclient', [
          'curl',
          '-sS',
          '-m',
          '20',
          `http://${at(8080)}/bytes/67108864`,
        ])
        t.equal(got.stdout.length, 67_108_864, got.stderr)
      },
    )

    await t.test(`${family}: a half-closed connection still brings the answer`, async t => {
      t.match(await inPod(lab, 'zclient', 'half', to, 7000, 'hello'), { how: 'end', received: 'hello' })
    })

    await t.test(
      `${family}: a port that nobody listens on is refused at once, and both logs say so`,
      async t => {
        log.forget()
        const { how, ms } = await inPod(lab, 'zclient', 'say', to, 9, '')
        // Ours would be a RST; ztunnel ends its application's connection in order, whatever the status.
        t.equal(how, 'end')
        t.ok(ms < 2000, `${ms} ms`)
        t.match(await log.next({ direction: 'inbound', to: at(9) }), {
          reason: 'unreachable',
          error_code: 'ECONNREFUSED',
        })
        t.match(await ztunnel.connection('outbound', at(9)), { error: /503 Service Unavailable/ })
      },
    )

    await t.test(`${family}: a server's reset leaves us as a reset; ztunnel makes an end of it`, async t => {
      log.forget()
      ztunnel.log.forget()
      t.match(await inPod(lab, 'zclient', 'say', to, 7003, 'RESET\n'), { how: 'end', received: '' })
      t.match(await log.next({ direction: 'inbound', to: at(7003) }), {
        reason: 'mtls',
        error_code: 'ECONNRESET',
      })
      t.match(await ztunnel.connection('outbound', at(7003)), { level: 'error', error: /reset/ })
    })

    await t.test(`${family}: a client's reset reaches us as an end, and nothing is left open`, async t => {
      log.forget()
      t.match(await inPod(lab, 'zclient', 'abort', to, 7000, 'x\n'), { how: 'done' })
      const line = await log.next({ direction: 'inbound', to: at(7000) })
      t.match(line, { reason: 'mtls', bytes_sent: 2, bytes_recv: 2 })
      t.equal(line['error'], undefined, 'ztunnel makes an end of it')
    })

    await t.test(`${family}: the agent's own ports are not for reaching through a tunnel`, async t => {
      log.forget()
      t.match(await inPod(lab, 'zclient', 'say', to, 15_008, ''), { how: 'end', received: '' })
      t.match(await log.next({ direction: 'inbound', to: at(15_008) }), { reason: 'policy' })
      t.match(await ztunnel.connection('outbound', at(15_008)), { error: /400 Bad Request/ })
    })
  }

  await t.test(
    '150 connections at once share the tunnels that ztunnel opens, and all are answered',
    async t => {
      const result = await inPod(lab, 'zclient', 'many', server.ip, 7000, 150)
      t.match(result, { how: 'done', answered: 150 })
    },
  )
})
