/** How figures are written in reports: three digits that count, thousands set apart, the same everywhere. */
import type { Spread } from './stats.ts'
import { relativeRange } from './stats.ts'
import type { Target } from './targets.ts'

/** Shown where there is no figure. */
export const NO_FIGURE = '–'

/** `5.21`, `52.1`, `521`, `5,210`, `0.0521`. */
export function figure(value: number): string {
  if (!Number.isFinite(value)) return NO_FIGURE
  const size = Math.abs(value)
  if (size === 0) return '0'
  if (size >= 100) return Math.round(value).toLocaleString('en-US')
  const digits = Math.min(20, Math.max(0, 2 - Math.floor(Math.log10(size))))
  return value.toFixed(digits)
}

/** What was counted: `200`, `100,000`. */
export function count(value: number): string {
  return Number.isInteger(value) ? value.toLocaleString('en-US') : figure(value)
}

/** `1.04×`. */
export function times(ratio: number): string {
  return Number.isFinite(ratio) ? `${ratio >= 10 ? figure(ratio) : ratio.toFixed(2)}×` : NO_FIGURE
}

/** `±9%`: half of the way from lowest to highest, in percent of the median. Empty for a single round. */
export function plusMinus(spread: Spread): string {
  const range = relativeRange(spread)
  if (spread.count < 2 || range === undefined) return ''
  return `±${Math.round((range * 100) / 2)}%`
}

/** `4.31 – 6.20`. */
export function fromTo({ min, max }: Spread): string {
  return min === max ? figure(min) : `${figure(min)} – ${figure(max)}`
}

/** `+4.1%`. */
export function change(factor: number): string {
  if (!Number.isFinite(factor)) return NO_FIGURE
  const percent = (factor - 1) * 100
  const text = Math.abs(percent) >= 100 ? Math.round(percent).toLocaleString('en-US') : percent.toFixed(1)
  return `${percent > 0 ? '+' : ''}${text}%`.replace('-', '−')
}

/** `≥1.2×`, `≤90 MB`; a ratio to another metric of the same arm says which. */
export function bound({ bound, limit, of }: Target, unit: string): string {
  const sign = bound === 'at-least' ? '≥' : '≤'
  if (of === 'value') return `${sign}${limit} ${unit}`
  return `${sign}${limit}×${of === 'ztunnel' ? '' : ` ${of.name}`}`
}

/** `1.5 GiB`. */
export function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let size = count
  let at = 0
  while (Math.abs(size) >= 1024 && at < units.length - 1) {
    size /= 1024
    at++
  }
  return `${figure(size)} ${units[at]}`
}

/** `1 h 2 min`, `3 min 20 s`, `12 s`. */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000))
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)]
  if (hours > 0) return `${hours} h ${minutes} min`
  return minutes > 0 ? `${minutes} min ${seconds % 60} s` : `${seconds} s`
}

/** `any round`, `round 2`, `rounds 1, 3`. */
export function roundsText(rounds: readonly number[], all: number): string {
  if (rounds.length >= all) return 'any round'
  return `${rounds.length === 1 ? 'round' : 'rounds'} ${rounds.join(', ')}`
}
