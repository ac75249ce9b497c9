/**
 * The two implementations of WebCrypto that certificates can be made with. Keys belong to the engine that made
 * them, so one process uses one engine; nothing else in the authority knows which.
 */
import { webcrypto } from 'node:crypto'
import { Crypto as PeculiarCrypto } from '@peculiar/webcrypto'
import type { EngineName } from './engine-name.ts'

export type Engine = Crypto

/** The engine of that name. It is passed to whatever needs one; the library's own default is left alone. */
export function engineOf(name: EngineName): Engine {
  return name === 'node' ? webcrypto : new PeculiarCrypto()
}
