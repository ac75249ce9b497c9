/** From values to places along an axis, and the round values that an axis is marked with. */

export interface Scale {
  /** The place of a value. */
  at(value: number): number
  /** Where the axis is marked. */
  readonly ticks: readonly number[]
  readonly isLog: boolean
}

/** How many times the smallest the largest may be before an axis is drawn in powers. */
const LINEAR_LIMIT = 30

/** An axis from 0 to a round value above all of these; they are not negative. */
export function linearScale(values: readonly number[], from: number, to: number): Scale {
  const { top, step } = roundAbove(Math.max(0, ...values))
  const count = Math.round(top / step)
  return {
    at: value => from + (value / top) * (to - from),
    ticks: Array.from({ length: count + 1 }, (_, at) => at * step),
    isLog: false,
  }
}

/** An axis in powers of ten around values above 0. */
export function logScale(values: readonly number[], from: number, to: number): Scale {
  const above = values.filter(value => value > 0)
  const low = Math.floor(Math.log10(Math.min(...above)) + 1e-9)
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...above)) - 1e-9))
  return {
    at: value => from + ((Math.log10(Math.max(value, 10 ** low)) - low) / (high - low)) * (to - from),
    ticks: Array.from({ length: high - low + 1 }, (_, at) => 10 ** (low + at)),
    isLog: true,
  }
}

/** Linear, or in powers when the values are too far apart to be told from each other otherwise. */
export function fittingScale(values: readonly number[], from: number, to: number): Scale {
  const above = values.filter(value => value > 0)
  const isWide = above.length === values.length && Math.max(...above) > Math.min(...above) * LINEAR_LIMIT
  return isWide ? logScale(values, from, to) : linearScale(values, from, to)
}

/** The next value above of the kind that people count in, and the step that leads there in three to six. */
function roundAbove(value: number): { top: number; step: number } {
  if (!(value > 0) || !Number.isFinite(value)) return { top: 1, step: 0.5 }
  const power = 10 ** Math.floor(Math.log10(value / 4))
  const step = [1, 2, 2.5, 5, 10].map(each => each * power).find(each => each * 5 >= value) ?? power * 10
  return { top: Math.ceil(value / step - 1e-9) * step, step }
}
