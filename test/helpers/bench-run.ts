/** A run of the bench as its file holds it: five rounds of four arms, made up, with one arm that did not run. */
import type { ArmName, BenchRun, MetricInfo, MicroResult, Sample, Series } from '../../bench/model.ts'

export const HOSTILE = `<script>alert("x")</script>&'\u001b[31m`

/** What each arm measures of a metric in its five rounds. */
export type Measured = Partial<Record<ArmName, readonly number[]>>

/** Samples of one metric, rounds counted from 1. */
export function samplesOf(metric: string, measured: Measured): Sample[] {
  return Object.entries(measured).flatMap(([arm, values]) =>
    values.map((value, at) => ({
      arm: arm as ArmName,
      metric,
      round: at + 1,
      value,
      at: `2026-11-23T10:${String(at * 4).padStart(2, '0')}:00.000Z`,
    })),
  )
}

export function metricInfo(id: string, more: Partial<MetricInfo> = {}): MetricInfo {
  return {
    id,
    title: id,
    unit: 'Gb/s',
    better: 'higher',
    command: `measure ${id}`,
    about: `What ${id} means.`,
    ...more,
  }
}

const METRICS: readonly (readonly [MetricInfo, Measured])[] = [
  [
    metricInfo('bulk-1', {
      title: 'bulk, 1 stream',
      command: 'iperf3 -c 10.77.0.2 -t 3',
      about: 'Application bytes through one connection.',
    }),
    {
      none: [16.8, 16.5, 12.3, 16.1, 15.9],
      nginx: [5.2, 4.2, 3.9, 4.4, 4.1],
      ztunnel: [4.0, 4.5, 4.4, 4.6, 5.6],
      culvert: [5.9, 4.8, 4.3, 6.2, 6.1],
    },
  ],
  [
    metricInfo('rt-64-p50', { title: 'round trip 64 B, p50', unit: 'µs', better: 'lower' }),
    {
      none: [71, 68, 92, 70, 74],
      nginx: [159, 150, 200, 148, 162],
      ztunnel: [160, 160, 193, 158, 170],
      culvert: [150, 166, 138, 149, 155],
    },
  ],
  [
    metricInfo('rt-64-p99', { title: 'round trip 64 B, p99', unit: 'µs', better: 'lower' }),
    {
      none: [130, 120, 170, 133, 140],
      ztunnel: [310, 290, 390, 300, 320],
      culvert: [400, 380, 500, 410, 405],
    },
  ],
  [
    metricInfo('beside-bulk-p99', { title: 'round trip 64 B beside bulk, p99', unit: 'µs', better: 'lower' }),
    {
      none: [230, 220, 270, 233, 240],
      ztunnel: [910, 990, 890, 900, 920],
      culvert: [700, 680, 900, 710, 705],
    },
  ],
  [
    metricInfo('conn-1', { title: 'new connections, one at a time', unit: '1/s' }),
    {
      none: [7045, 8156, 4395, 7800, 7720],
      nginx: [378, 387, 323, 380, 371],
      ztunnel: [1443, 1493, 1422, 1460, 1450],
      culvert: [1357, 1993, 2232, 2010, 2080],
    },
  ],
  [
    metricInfo('rss-idle', { title: 'memory, idle', unit: 'MB', better: 'lower' }),
    {
      nginx: [9.1, 9.1, 9.2, 9.1, 9.1],
      ztunnel: [14.2, 14.3, 14.1, 14.2, 14.2],
      culvert: [84, 85, 83, 84, 86],
    },
  ],
]

const MICRO: readonly MicroResult[] = [
  {
    id: 'frame-encode-64',
    title: 'frame encode, 64 B',
    opsPerSecond: 1_520_000,
    samples: [1_500_000, 1_520_000, 1_540_000],
    about: 'One DATA frame, header and payload, handed to a transport.',
  },
  {
    id: 'ingest-10k',
    title: 'xDS ingest, 10,000 workloads',
    opsPerSecond: 41_000,
    samples: [39_000, 41_000, 44_000],
    unit: 'workloads',
    memory: { peakBytes: 61_000_000, keptBytes: 13_000_000 },
    about: 'From encoded responses to a filled mesh.',
  },
]

const SERIES: readonly Series[] = [
  {
    id: 'workloads-rss',
    title: 'memory of the agent by workloads known',
    xLabel: 'workloads',
    yLabel: 'resident memory',
    unit: 'MiB',
    points: [
      { x: 1000, y: 88 },
      { x: 10_000, y: 104 },
      { x: 50_000, y: 160 },
      { x: 100_000, y: 231 },
    ],
    about: 'A real agent, a real ca-server.',
  },
]

export function benchRun(more: Partial<BenchRun> = {}): BenchRun {
  return {
    schema: 1,
    startedAt: '2026-11-23T10:00:00.000Z',
    finishedAt: '2026-11-23T10:21:30.000Z',
    commit: '0123456789abcdef0123456789abcdef01234567',
    isDirty: false,
    command: 'npm run bench -- --rounds 5',
    machine: {
      cpu: 'Example CPU @ 2.60GHz',
      cores: 2,
      kernel: '6.18.5',
      memoryBytes: 25_276_841_984,
      node: 'v26.10.0',
      os: 'Debian GNU/Linux 12',
      loadAtStart: 0.12,
    },
    arms: [
      { name: 'culvert', version: '0.1.0', commands: ['node agent/main.ts'], config: 'POD_SOURCE=static' },
      { name: 'none', commands: [], config: '' },
      { name: 'nginx', version: '1.22.1', commands: ['nginx -c nginx.conf'], config: 'stream { }' },
      { name: 'haproxy', missing: 'haproxy is not installed', commands: [], config: '' },
      { name: 'ztunnel', version: '1.28.0', commands: ['ztunnel'], config: 'FAKE_CA=true' },
    ],
    metrics: METRICS.map(([metric]) => metric),
    rounds: 5,
    samples: METRICS.flatMap(([metric, measured]) => samplesOf(metric.id, measured)),
    micro: MICRO,
    series: SERIES,
    ...more,
  }
}
