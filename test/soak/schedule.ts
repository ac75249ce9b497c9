/** What is done to the mesh while traffic goes on: a list made of the seed, with its times. */
import { Random } from '../fuzz/random.ts'

/**
 * | deed | what may fail through it |
 * |---|---|
 * | kill-agent | what was open through that agent |
 * | replace-agent | what was open through it for longer than its grace |
 * | churn | nothing |
 * | stop-ca, kill-ca | nothing |
 */
export type DeedKind = 'kill-agent' | 'replace-agent' | 'churn' | 'stop-ca' | 'kill-ca'

export interface PlannedDeed {
  readonly atMs: number
  readonly kind: DeedKind
  readonly node: 'node-a' | 'node-b'
}

/** Agents are killed and replaced in the first part only: their memory needs time to show that it does not grow. */
export const HARSH_PART = 0.4

export function makeSchedule(seed: number, durationMs: number, everyMs: number): PlannedDeed[] {
  const random = new Random('schedule', seed)
  const deeds: PlannedDeed[] = []
  const harshUntilMs = durationMs * HARSH_PART
  // One of each at first: a short soak has them all.
  const first: DeedKind[] = ['replace-agent', 'kill-agent', 'churn', 'stop-ca']
  for (let atMs = everyMs / 2; atMs < durationMs - everyMs; atMs += everyMs * (0.5 + random.int(100) / 100)) {
    const isHarsh = atMs < harshUntilMs
    const kind =
      first.shift() ??
      random.weighted<DeedKind>([
        [isHarsh ? 3 : 0, 'kill-agent'],
        [isHarsh ? 3 : 0, 'replace-agent'],
        [4, 'churn'],
        [1, 'stop-ca'],
        [1, 'kill-ca'],
      ])
    deeds.push({ atMs: Math.round(atMs), kind, node: random.pick(['node-a', 'node-b']) })
  }
  return deeds
}
