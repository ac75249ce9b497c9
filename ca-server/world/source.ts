/** Where the world comes from: a file, or a cluster's API server. */
import type { World } from './world.ts'

export interface WorldSource {
  /** Fills the world and keeps it true until the signal aborts. Ends when the first try has been made. */
  start(world: World, signal: AbortSignal): Promise<void>
  /** Names what has not been told yet, for people; none when the world is whole. */
  pending(): readonly string[]
}
