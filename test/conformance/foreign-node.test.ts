/** Node's own HTTP/2, which is nghttp2, against ours, in both roles. */
import t from 'tap'
import { CODE } from '../../agent/hbone/protocol.ts'
import { foreignClient } from '../helpers/foreign-client.ts'
import { foreignServer } from '../helpers/foreign-server.ts'
import type { Abilities } from '../helpers/foreign-suite.ts'

const NODE: Abilities = {
  kind: 'node',
  // A stream that is closed with a code ends in order first; one that is destroyed is reset like this.
  resetsWith: { client: CODE.internalError, server: CODE.internalError },
  seesCode: true,
  halfClosesFirst: true,
  limitsStreams: true,
  stallsAlone: true,
  seesGoaway: true,
}

await t.test('Node calls us', t => foreignClient(t, NODE))
await t.test('we call Node', t => foreignServer(t, NODE))
