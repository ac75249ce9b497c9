/** A session that has closed in the middle of what it was given reads no further. */
import t from 'tap'
import { FLAG, FRAME, PREFACE } from '../../../agent/hbone/protocol.ts'
import { DEFAULT_SESSION } from '../../../agent/hbone/limits.ts'
import { HpackEncoder } from '../../../agent/hbone/hpack/encoder.ts'
import { ServerSession, type ConnectRequest } from '../../../agent/hbone/server.ts'
import { frame, settings } from '../../helpers/raw-peer.ts'
import { socketPair } from '../../helpers/tcp.ts'

await t.test('no tunnel is opened by what stands behind the GOAWAY that closed the session', async t => {
  const [near, far] = await socketPair(t)
  const requests: ConnectRequest[] = []
  const session = new ServerSession(far, DEFAULT_SESSION, request => requests.push(request))
  t.teardown(() => session.destroy())
  const block = new HpackEncoder().encode([
    [':method', 'CONNECT'],
    [':authority', '10.0.0.1:80'],
  ])
  const closed = new Promise<void>(resolve => session.onClosed(() => resolve()))
  // One write, one read: the session ends, being idle, at the GOAWAY.
  near.write(
    Buffer.concat([
      PREFACE,
      settings(),
      frame(FRAME.goaway, 0, 0, Buffer.alloc(8)),
      frame(FRAME.headers, FLAG.endHeaders, 1, block),
    ]),
  )
  await closed
  await new Promise(resolve => setImmediate(resolve))
  t.strictSame(
    requests.filter(({ tunnel }) => !tunnel.isClosed).map(({ authority }) => authority),
    [],
    'a tunnel of a closed session would never end',
  )
})
