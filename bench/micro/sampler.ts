/**
 * How often something can be done in a second: the number of repetitions is found first, so that a sample lasts long enough
 * for the clock; then it runs until the compiler has done its part; then every sample counts.
 */

export interface SampleOptions {
  /** Run before the first sample, ms. */
  readonly warmUpMs: number
  /** What a sample lasts, about, ms. */
  readonly sampleMs: number
  readonly samples: number
}

export const THOROUGH: SampleOptions = { warmUpMs: 300, sampleMs: 150, samples: 9 }
export const QUICK: SampleOptions = { warmUpMs: 20, sampleMs: 10, samples: 3 }

/** Does it so many times. */
export type Work = (times: number) => void | Promise<void>

/** Times a second, one figure a sample. Rejects with what the work throws. */
export async function ratesOf(work: Work, options: SampleOptions): Promise<number[]> {
  const { warmUpMs, sampleMs, samples } = options
  let times = 1
  for (const endMs = performance.now() + warmUpMs; ;) {
    // The shorter of two: one during which somebody else had the processor would make samples of next to nothing.
    const tookMs = Math.min(await time(work, times), await time(work, times))
    // At most tenfold: the first runs are slow, and say little about the later ones.
    times = Math.max(1, Math.round(times * Math.min(10, sampleMs / Math.max(tookMs, 0.001))))
    if (performance.now() >= endMs && tookMs > sampleMs / 4) break
  }
  const rates: number[] = []
  for (let sample = 0; sample < samples; sample++) rates.push((times / (await time(work, times))) * 1000)
  return rates
}

async function time(work: Work, times: number): Promise<number> {
  const startMs = performance.now()
  const done = work(times)
  if (done) await done
  return performance.now() - startMs
}
