/** Relays as tests watch them. */
import type { Relay, RelayEnd, RelayOwner } from '../../agent/proxy/relay.ts'

export interface WatchedRelay extends Relay {
  readonly ended: Promise<RelayEnd>
  /** Application bytes so far. */
  readonly fromApp: number
  readonly toApp: number
}

/** Starts a relay with an owner that keeps what it is told. */
export function watchRelay(start: (owner: RelayOwner) => Relay): WatchedRelay {
  const { promise: ended, resolve } = Promise.withResolvers<RelayEnd>()
  const counts = { fromApp: 0, toApp: 0 }
  const relay = start({
    fromApp: bytes => (counts.fromApp += bytes),
    toApp: bytes => (counts.toApp += bytes),
    ended: resolve,
  })
  return {
    ended,
    cut: why => relay.cut(why),
    get fromApp() {
      return counts.fromApp
    },
    get toApp() {
      return counts.toApp
    },
  }
}
