/** A real ztunnel as the server of our outbound: a pod behind a Culvert agent talks to one behind it. */
import t from 'tap'
import { formatAddress } from '../../lib/address.ts'
import { BLOCK } from '../../lab/app/http.ts'
import { httpGet, podNamed } from '../../lab/demo/facts.ts'
import { Watch } from '../helpers/lab-facts.ts'
import { inPod, withZtunnel } from '../helpers/ztunnel.ts'

const CLIENT = 'spiffe://cluster.local/ns/shop/sa/client'
const ZSERVER = 'spiffe://cluster.local/ns/shop/sa/zserver'

await withZtunnel(t, {}, async (lab, start) => {
  const client = await podNamed(lab, 'client')
  const server = await podNamed(lab, 'zserver')
  const ztunnel = await start('zserver')
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
        const seen = await httpGet(lab, 'client', `http://${at(8080)}/`)
        t.equal(seen.pod, 'zserver')
        t.equal(seen.client.replace(/:\d+$/, ''), formatAddress(from, 0).replace(/:0$/, ''))
        t.match(await log.next({ direction: 'outbound', to: at(8080) }), {
          reason: 'mtls',
          'src.identity': CLIENT,
          'dst.identity': ZSERVER,
          'dst.workload': 'zserver',
          'dst.addr': at(15_008),
        })
        t.match(await ztunnel.connection('inbound', at(8080)), {
          level: 'info',
          'src.identity': CLIENT,
          'src.workload': 'client',
          'dst.identity': ZSERVER,
        })
      },
    )

    await t.test(`${family}: 64 MiB arrive as they were sent, each way`, async t => {
      const { how, isSame } = await inPod(lab, 'client', 'upload', to, 7002, 64 * 1024 * 1024)
      t.strictSame({ how, isSame }, { how: 'end', isSame: true })
      const got = await lab.exec('client', ['curl', '-sS', '-m', '20', `http://${at(8080)}/bytes/67108864`])
      t.equal(got.stdout.length, 67_108_864, got.stderr)
      t.ok(isPattern(got.stdout), 'and back')
    })

    await t.test(`${family}: a half-closed connection still brings the answer`, async t => {
      t.match(await inPod(lab, 'client', 'half', to, 7000, 'hello'), { how: 'end', received: 'hello' })
    })

    await t.test(`${family}: a port that nobody listens on is refused at once, with a reset`, async t => {
      log.forget()
      const { how, error, ms } = await inPod(lab, 'client', 'say', to, 9, '')
      t.strictSame({ how, error }, { how: 'reset', error: 'ECONNRESET' })
      t.ok(ms < 2000, `${ms} ms`)
      t.match(await log.next({ direction: 'outbound', to: at(9) }), {
        reason: 'unreachable',
        error_code: 'HTTP_503',
      })
      t.match(await ztunnel.connection('inbound', at(9)), { error: /Connection refused/ })
    })

    await t.test(`${family}: a server's reset comes from ztunnel as an end`, async t => {
      log.forget()
      t.match(await inPod(lab, 'client', 'say', to, 7003, 'RESET\n'), { how: 'end', received: '' })
      const line = await log.next({ direction: 'outbound', to: at(7003) })
      t.match(line, { reason: 'mtls' })
      t.equal(line['error'], undefined)
    })

    await t.test(`${family}: a client's reset reaches ztunnel as one`, async t => {
      ztunnel.log.forget()
      t.match(await inPod(lab, 'client', 'abort', to, 7000, 'x\n'), { how: 'done' })
      t.match(await ztunnel.connection('inbound', at(7000)), {
        error: /established in response to a CONNECT request was reset/,
      })
    })
  }

  await t.test('150 connections at once are all answered', async t => {
    t.match(await inPod(lab, 'client', 'many', server.ip, 7000, 150), { how: 'done', answered: 150 })
  })
})

/** What the lab's application sends is one block over and over. */
function isPattern(bytes: Buffer): boolean {
  for (let at = 0; at < bytes.length; at += BLOCK.length)
    if (!bytes.subarray(at, at + BLOCK.length).equals(BLOCK)) return false
  return true
}
