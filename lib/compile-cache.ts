/**
 * Node's cache of compiled modules: with it a program of ours starts in half the time. It lies inside the
 * installation, so only whoever may change the code can change the cache; where it cannot be written, or
 * NODE_DISABLE_COMPILE_CACHE is set, everything works without.
 */
import { fileURLToPath } from 'node:url'

export const COMPILE_CACHE_DIR: string = fileURLToPath(
  new URL('../node_modules/.cache/culvert', import.meta.url),
)
