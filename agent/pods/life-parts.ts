/** What a pod's life begins with. */
import type { Router } from '../mesh/router.ts'
import type { CaptureParts } from './capture.ts'
import type { LifeStateParts } from './life-state.ts'
import type { ServedParts } from './served.ts'
import type { LocalPod } from './source.ts'

/** What a pod's life needs of the rest of the agent. */
export interface LifeParts extends CaptureParts, ServedParts, LifeStateParts {
  readonly router: Router
  /** Undefined until discovery has told. */
  serviceAccountOf(pod: LocalPod): string | undefined
  /** Somebody has said that it is being deleted. */
  isTerminating(pod: LocalPod): boolean
  /** How long a captured pod waits for its service account before it is served without, milliseconds. @default 5000 */
  readonly unnamedAfterMs?: number
}

/**
 * How the pod was found. `running`: it has been going on without us, and is captured when its certificate is there.
 * `new`: it has not begun to run; nothing of it may pass in the clear. `adopted`: an agent before this one had it.
 */
export type Beginning = 'running' | 'new' | 'adopted'
