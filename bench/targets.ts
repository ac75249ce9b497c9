/**
 * What the tunnel is to reach, as ratios to ztunnel in the same run on the same machine, or as plain amounts. Metrics
 * are named by their ids.
 */

export interface Target {
  /** The `id` of a metric. */
  readonly metric: string
  /**
   * What is judged: the median ratio to ztunnel; the median ratio of this metric to another one of the same arm and
   * round, called `name` in reports; or the median itself, in the metric's unit.
   */
  readonly of: 'ztunnel' | { readonly metric: string; readonly name: string } | 'value'
  readonly bound: 'at-least' | 'at-most'
  readonly limit: number
}

export const TARGETS: readonly Target[] = [
  { metric: 'bulk-1', of: 'ztunnel', bound: 'at-least', limit: 1.2 },
  { metric: 'bulk-8', of: 'ztunnel', bound: 'at-least', limit: 1.2 },
  { metric: 'rt-64-p50', of: 'ztunnel', bound: 'at-most', limit: 1 },
  { metric: 'rt-64-p99', of: 'ztunnel', bound: 'at-most', limit: 1 },
  { metric: 'beside-bulk-p99', of: { metric: 'rt-64-p99', name: 'alone' }, bound: 'at-most', limit: 2 },
  { metric: 'conn-1', of: 'ztunnel', bound: 'at-least', limit: 1.3 },
  { metric: 'conn-32', of: 'ztunnel', bound: 'at-least', limit: 1.3 },
  { metric: 'cpu-gib', of: 'ztunnel', bound: 'at-most', limit: 0.9 },
  { metric: 'cpu-rt', of: 'ztunnel', bound: 'at-most', limit: 1 },
  { metric: 'rss-10k', of: 'ztunnel', bound: 'at-most', limit: 1.5 },
  { metric: 'rss-idle', of: 'value', bound: 'at-most', limit: 90 },
]
