/**
 * Connections between a ztunnel and us that nobody says anything on: ztunnel sends a PING after 10 s and gives up 20 s later
 * when it is not answered, and so do we. Certificates are renewed meanwhile, and that touches nothing that is open.
 */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { httpGet, podNamed, until } from '../../lab/demo/facts.ts'
import { logPath } from '../../lab/names.ts'
import { formatAddress } from '../../lib/address.ts'
import { Watch } from '../helpers/lab-facts.ts'
import { inPod, withZtunnel } from '../helpers/ztunnel.ts'

/** Longer than the first PING and what its answer may take. */
const IDLE_MS = 32_000
/** Certificates of a minute are valid half a minute before; ztunnel renews in the middle, 15 s after it has one. */
const TTL = '60s'

await withZtunnel(t, {}, async (lab, start) => {
  const [server, zserver] = await Promise.all([podNamed(lab, 'server'), podNamed(lab, 'zserver')])
  const env = { SECRET_TTL: TTL }
  const [calls, answers] = await Promise.all([start('zclient', { env }), start('zserver', { env })])
  const log = new Watch(lab, 'node-a')
  const issued = (identity: string) =>
    readFileSync(logPath(lab.paths, 'ca-server'), 'utf8')
      .split('\n')
      .filter(line => line.includes('certificate issued') && line.includes(`"${identity}"`)).length

  await t.test('idle tunnels stay in both directions, over a renewal of the certificates', async t => {
    const both = await Promise.all([
      inPod(lab, 'zclient', 'pause', server.ip, 7000, 'line\n', IDLE_MS),
      inPod(lab, 'client', 'pause', zserver.ip, 7000, 'line\n', IDLE_MS),
    ])
    for (const { how, received } of both)
      t.strictSame({ how, received }, { how: 'done', received: 'line\nline\n' })
    for (const [line, ours] of [
      [await calls.connection('outbound', `${server.ip}:7000`), { from: 'zclient' }],
      [await answers.connection('inbound', `${zserver.ip}:7000`), { from: 'client' }],
    ] as const) {
      t.match(line, { level: 'info', bytes_sent: 10, bytes_recv: 10 })
      t.ok(parseInt(String(line['duration'])) >= IDLE_MS - 1000, String(line['duration']))
      const same = await until('our line', 20_000, () => log.lines(ours)[0])
      t.match(same, { reason: 'mtls', bytes_sent: 10, bytes_recv: 10 })
      t.equal(same['error'], undefined)
    }
    for (const account of ['zclient', 'zserver']) {
      const count = issued(`spiffe://cluster.local/ns/shop/sa/${account}`)
      t.ok(count >= 2 && count <= 4, `${count} certificates for ${account}: renewed, and not without pause`)
    }
  })

  await t.test('new tunnels are made with the new certificates', async t => {
    log.forget()
    // Over IPv6: tunnels that stand already are not used for it.
    for (const [from, to] of [
      ['zclient', server],
      ['client', zserver],
    ] as const) {
      t.equal((await httpGet(lab, from, `http://${formatAddress(to.ip6, 8080)}/`)).pod, to.name)
      t.match(await log.next({ from }), { reason: 'mtls' })
    }
  })
})
