/** One thing that is measured by itself. */
import type { MicroResult } from '../model.ts'
import { median } from '../stats.ts'
import { ratesOf, type SampleOptions, type Work } from './sampler.ts'

export interface Part extends Pick<MicroResult, 'id' | 'title' | 'about'> {
  /** What one operation is, when that is not plain. */
  readonly unit?: string
  /** Makes ready; gives what is done again and again, and what is to be done at the end. */
  start(): Promise<Started> | Started
}

export interface Started {
  readonly work: Work
  readonly stop?: () => Promise<void> | void
}

/** Measures it. Rejects with what it throws. */
export async function measure(part: Part, options: SampleOptions): Promise<MicroResult> {
  const { id, title, about, unit } = part
  const { work, stop } = await part.start()
  try {
    const samples = await ratesOf(work, options)
    return { id, title, ...(unit !== undefined && { unit }), opsPerSecond: median(samples), samples, about }
  } finally {
    await stop?.()
  }
}
