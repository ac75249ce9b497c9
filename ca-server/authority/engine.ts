/**
 * The two implementations of WebCrypto that certificates can be made with. Keys belong to the engine that made
 * them, so one process uses one engine; nothing else in the authority knows which.
 */
import { webcrypto } from 'node:crypto'
import { Crypto as PeculiarCrypto } from '@peculiar/webcrypto'
import { cryptoProvider } from './x509.ts'
import type { EngineName } from './engine-name.ts'

export type Engine = Crypto

/** The engine of that name; also makes it the one that parsed certificates and requests use by default. */
export function engineOf(name: EngineName): Engine {
  const engine = name === 'node' ? webcrypto : new PeculiarCrypto()
  cryptoProvider.set(engine)
  return engine
}
