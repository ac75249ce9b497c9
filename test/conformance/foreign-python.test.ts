/** python3-h2 against ours, in both roles. */
import t from 'tap'
import { CODE } from '../../agent/hbone/protocol.ts'
import { foreignClient } from '../helpers/foreign-client.ts'
import { foreignServer } from '../helpers/foreign-server.ts'
import type { Abilities } from '../helpers/foreign-suite.ts'

const PYTHON: Abilities = {
  kind: 'python',
  resetsWith: { client: CODE.connectError, server: CODE.connectError },
  seesCode: true,
  halfClosesFirst: true,
  limitsStreams: true,
  stallsAlone: true,
  seesGoaway: true,
}

await t.test('python3-h2 calls us', t => foreignClient(t, PYTHON))
await t.test('we call python3-h2', t => foreignServer(t, PYTHON))
