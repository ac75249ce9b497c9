/**
 * The few statistics that the bench's reports use. None of them takes a run out: the spread is from the lowest to the
 * highest, and one odd round shows. Empty input is an error of the caller's (`NaN` would travel far unseen).
 */
import { CulvertError } from '../lib/errors.ts'

export interface Spread {
  readonly count: number
  readonly min: number
  readonly lowerQuartile: number
  readonly median: number
  readonly upperQuartile: number
  readonly max: number
}

/**
 * The value below which the part `q` (0 to 1) of the values lies, interpolated between neighbours as R's type 7 and
 * NumPy do. Throws `INPUT` for no values, or a `q` outside 0 to 1.
 */
export function quantile(values: readonly number[], q: number): number {
  return quantileOfSorted(sorted(values), q)
}

/** The middle value, or halfway between the two in the middle. Throws `INPUT` for no values. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}

/** Where the values lie. Throws `INPUT` for no values. */
export function spreadOf(values: readonly number[]): Spread {
  const order = sorted(values)
  return {
    count: order.length,
    min: order[0]!,
    lowerQuartile: quantileOfSorted(order, 0.25),
    median: quantileOfSorted(order, 0.5),
    upperQuartile: quantileOfSorted(order, 0.75),
    max: order.at(-1)!,
  }
}

/** The distance from lowest to highest as a part of the median; 0 for one value, undefined where the median is 0. */
export function relativeRange({ min, median, max }: Spread): number | undefined {
  return median === 0 ? undefined : (max - min) / Math.abs(median)
}

/** Half of them are within this part of the median from each other; undefined where the median is 0. */
export function relativeQuartileRange(spread: Spread): number | undefined {
  const { lowerQuartile, median, upperQuartile } = spread
  return median === 0 ? undefined : (upperQuartile - lowerQuartile) / Math.abs(median)
}

/**
 * How `values` stand to `bases`, round by round (both by number of the round): what a machine does differently from one
 * minute to the next is in both and goes out. Rounds that only one of them has, and bases of 0, are left out.
 */
export function ratiosByRound(
  values: ReadonlyMap<number, number>,
  bases: ReadonlyMap<number, number>,
): Map<number, number> {
  const ratios = new Map<number, number>()
  for (const [round, value] of values) {
    const base = bases.get(round)
    if (base !== undefined && base !== 0) ratios.set(round, value / base)
  }
  return ratios
}

/** The mean of factors: that of 2 and ½ is 1. Throws `INPUT` for none, or one that is not above 0. */
export function geometricMean(factors: readonly number[]): number {
  if (factors.length === 0 || factors.some(factor => !(factor > 0)))
    throw new CulvertError('INPUT', 'a geometric mean needs factors above 0')
  return Math.exp(factors.reduce((sum, factor) => sum + Math.log(factor), 0) / factors.length)
}

function sorted(values: readonly number[]): Float64Array {
  if (values.length === 0) throw new CulvertError('INPUT', 'there are no values to take a quantile of')
  if (values.some(value => Number.isNaN(value))) throw new CulvertError('INPUT', 'a value is not a number')
  return Float64Array.from(values).sort()
}

function quantileOfSorted(order: Float64Array, q: number): number {
  if (!(q >= 0 && q <= 1)) throw new CulvertError('INPUT', `a quantile lies between 0 and 1, not at ${q}`)
  const at = (order.length - 1) * q
  const below = order[Math.floor(at)]!
  const above = order[Math.ceil(at)]!
  // Not below + part × (above − below): that overflows for the largest numbers. Rounding must not lead out of the two.
  return Math.min(above, Math.max(below, below * (1 - (at % 1)) + above * (at % 1)))
}
