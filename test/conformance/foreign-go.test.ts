/** Go's net/http, with an HTTP/2 of its own, against ours, in both roles. */
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { CODE } from '../../agent/hbone/protocol.ts'
import { goPeer } from '../helpers/foreign-go.ts'
import { foreignClient } from '../helpers/foreign-client.ts'
import { foreignServer } from '../helpers/foreign-server.ts'
import type { Abilities } from '../helpers/foreign-suite.ts'

/** A compiler that has never been used compiles its library too. */
const COMPILE_MS = 300_000
const SUITE_MS = 120_000
t.setTimeout(COMPILE_MS + 2 * SUITE_MS)

const GO: Abilities = {
  kind: 'go',
  // A request that is given up is CANCEL, a handler that panics is INTERNAL_ERROR: there is no choice.
  resetsWith: { client: CODE.cancel, server: CODE.internalError },
  seesCode: false,
  // A handler ends its half by returning, and with it everything.
  halfClosesFirst: false,
  limitsStreams: false,
  // net/http grants a megabyte to each, and no more to all of them.
  stallsAlone: false,
  seesGoaway: false,
}

await t.test('it is there, of the standard library alone', { timeout: COMPILE_MS }, async t => {
  t.ok(await goPeer(fileURLToPath(new URL('peers/peer.go', import.meta.url))))
})
await t.test('Go calls us', { timeout: SUITE_MS }, t => foreignClient(t, GO))
await t.test('we call Go', { timeout: SUITE_MS }, t => foreignServer(t, GO))
