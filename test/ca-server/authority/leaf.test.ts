import { generateKeyPairSync } from 'node:crypto'
import t from 'tap'
import { Authority } from '../../../ca-server/authority/authority.ts'
import { PublicKey } from '../../../ca-server/authority/x509.ts'
import { temporaryDirectory } from '../../helpers/ca-server.ts'
import { quietLog } from '../../helpers/quiet-log.ts'

const authority = await Authority.open({
  trustDomain: 'cluster.local',
  source: { kind: 'own-root', directory: temporaryDirectory(t) },
  engine: 'node',
  log: quietLog().log,
})
const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
const key = new PublicKey(publicKey.export({ type: 'spki', format: 'der' }))

async function issuedFor(seconds: number): Promise<{ beganMs: number; endsMs: number; nowMs: number }> {
  const nowMs = Date.now()
  const { notBefore, notAfter } = await authority.issue('spiffe://cluster.local/ns/a/sa/b', {
    publicKey: key,
    ttlMs: seconds * 1000,
  })
  return { beganMs: notBefore.getTime(), endsMs: notAfter.getTime(), nowMs }
}

await t.test('a certificate begins two minutes ago, for clocks that are late', async t => {
  for (const seconds of [240, 3600, 86_400]) {
    const { beganMs, nowMs } = await issuedFor(seconds)
    t.ok(Math.abs(nowMs - 120_000 - beganMs) < 2000, `${seconds} s`)
  }
})

await t.test('the middle of its validity lies ahead, however short it is: ztunnel renews there', async t => {
  for (const seconds of [10, 20, 60, 239, 3600]) {
    const { beganMs, endsMs, nowMs } = await issuedFor(seconds)
    t.ok(beganMs < nowMs, 'begun')
    t.ok(Math.abs(nowMs + seconds * 1000 - endsMs) < 2000, 'as long as was asked')
    const aheadMs = (beganMs + endsMs) / 2 - nowMs
    t.ok(aheadMs >= seconds * 100, `${seconds} s: ${aheadMs} ms ahead`)
  }
})
