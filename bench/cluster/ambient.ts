/**
 * What a real Istio ambient did, measured once on a cluster of the same make (two nodes, Kubernetes 1.34, 2 cores): istiod,
 * istio-cni of 1.32-dev, ztunnel release build, profile ambient, defaults. The other column of the table.
 */
export const AMBIENT = {
  'memory-agents': { text: '98 MB', value: 98 },
  'memory-control': { text: '129 MB', value: 129 },
  'cpu-rest': { text: '0.1–0.5 % of a core', value: 0.5 },
  'enrol-first-syn': { text: '0.36 s (0.30–0.77)', value: 360 },
  'enrol-open': { text: 'reset, 10 of 10', value: 10 },
  'enrol-new': { text: '1–6 fail', value: 1 },
  'new-pod': { text: '0.77 s (0.29–1.07)', value: 770 },
  'flush-client': { text: 'silent plaintext, 290 of 290; not noticed in 142 s' },
  'flush-server': { text: 'a stranger gets in under strict; not noticed in 142 s' },
  'kill-open': { text: 'a clean end' },
  'kill-new': { text: 'fail for 0.32 s / 0.87 s' },
  'kill-twice': { text: 'fail for 19.3 s' },
  'rollout-new': { text: '0 of 5,459 fail', value: 0 },
  'rollout-open': { text: 'cut after 26.3 s' },
  'control-away': { text: 'new pods: reset after 5.0 s, and plaintext to them in the clear' },
  'strict-new': { text: 'refused after 0.27 s: 207 resets, 31 clean ends' },
  'strict-open': { text: 'lives on, unseen' },
  'strict-node': { text: 'gets in, without a log line' },
  'server-reset': { text: 'a clean end' },
  'refused-port': { text: 'connect succeeds, then ECONNRESET' },
  udp: { text: 'plaintext, unreported' },
  'rt-p50': { text: '262 µs (3.0 ×)', ratio: 3.0 },
  'rt-p99': { text: '808 µs (3.8 ×)', ratio: 3.8 },
  'conn-p50': { text: '1,023 µs (4.9 ×)', ratio: 4.9 },
  'conn-rate': { text: '917/s (0.21 ×)', ratio: 0.21 },
  'bulk-1': { text: '3.34 Gb/s (0.30 ×)', ratio: 0.3 },
  'bulk-8': { text: '3.66 Gb/s (0.30 ×)', ratio: 0.3 },
  'cpu-rt': { text: '195 µs', value: 195 },
  'cpu-conn': { text: '926 µs', value: 926 },
  'cpu-gb': { text: '2.7 s', value: 2.7 },
} as const satisfies Record<
  string,
  { readonly text: string; readonly value?: number; readonly ratio?: number }
>

export type RowId = keyof typeof AMBIENT
