/** Where the world comes from: a file, or a cluster's API server. */
import type { World } from './world.ts'

export interface WorldSource {
  /** Begins to fill the world, and keeps it true until the signal aborts. A file has been read when this ends. */
  start(world: World, signal: AbortSignal): Promise<void>
  /** Names what has not been told yet, for people; none when the world is whole. */
  pending(): readonly string[]
}
