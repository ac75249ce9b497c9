/** The parts by themselves: operations a second of what a connection passes, in the process where nothing else happens. */
import type { MicroResult } from '../model.ts'
import { certificateParts } from './certificates.ts'
import { frameParts } from './frames.ts'
import { hpackParts } from './hpack.ts'
import { learn, learningResults } from './learning.ts'
import { measure, type Part } from './part.ts'
import { policyParts } from './policies.ts'
import { QUICK, THOROUGH } from './sampler.ts'

export interface MicroOptions {
  /** Short samples and small clusters only: shows that everything works, its figures are good for nothing. */
  readonly quick?: boolean
  /** Only results whose id begins with one of these. @default all */
  readonly only?: readonly string[]
  /** Gives up; rejects with its reason. */
  readonly signal?: AbortSignal
}

const PARTS: readonly Part[] = [...frameParts, ...hpackParts, ...policyParts, ...certificateParts]

/**
 * Measures everything, one thing after the other. Tells `progress` what is next. Rejects with what a part throws.
 */
export async function runMicro(
  progress: (what: string) => void,
  options: MicroOptions = {},
): Promise<MicroResult[]> {
  const { quick: isQuick = false, only, signal } = options
  const isWanted = (id: string) => only === undefined || only.some(start => id.startsWith(start))
  const results: MicroResult[] = []
  for (const part of PARTS) {
    signal?.throwIfAborted()
    if (!isWanted(part.id)) continue
    progress(part.title)
    results.push(await measure(part, isQuick ? QUICK : THOROUGH))
  }
  for (const pods of isQuick ? [1000] : [1000, 10_000, 100_000]) {
    if (!isWanted(`ingest-${pods}`) && !isWanted(`resolve-pod-${pods}`)) continue
    progress(`xDS ingest and resolve, ${pods.toLocaleString('en-US')} workloads`)
    const found = await learn(pods, { times: isQuick ? 1 : 3, isQuick, ...(signal && { signal }) })
    results.push(...learningResults(pods, found).filter(({ id }) => isWanted(id)))
  }
  return results
}
