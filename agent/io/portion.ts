/**
 * How much one socket may move before the others of the thread have their turn. A large portion costs fewer system
 * calls; but whoever sends a request of a few bytes waits for the portions of all who are served before, at every agent
 * that it passes. So portions are large while only bulk moves, and small as long as something small moves beside it.
 */

import { loop } from './loop.ts'

/** From so many bytes on at once it is bulk. */
const BULK = 64 * 1024
/** Up to so many it is a message that somebody waits for. */
const SMALL = 16 * 1024
/** How long one is remembered, ms: what moved bulk may have few bytes at once now and then. */
const REMEMBERED_MS = 100
/** One beside small messages. */
export const SMALL_PORTION = 64 * 1024

let smallUntilMs = -Infinity

/** Something small moves on this thread: portions are to be small. */
export function isShared(): boolean {
  return loop.nowMs < smallUntilMs
}

/** One socket, or pair of sockets, with what it moves. */
export class Mover {
  #bulkUntilMs = -Infinity

  /** Has moved so many bytes at once. */
  moved(bytes: number): void {
    if (bytes >= BULK) this.#bulkUntilMs = loop.nowMs + REMEMBERED_MS
    else if (bytes <= SMALL && loop.nowMs > this.#bulkUntilMs) smallUntilMs = loop.nowMs + REMEMBERED_MS
  }
}
