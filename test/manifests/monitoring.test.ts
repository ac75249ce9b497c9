import { readFileSync } from 'node:fs'
import t from 'tap'
import { AgentMetrics } from '../../agent/observe/metrics.ts'
import { createMetrics, observeSources } from '../../ca-server/metrics.ts'
import { find, MANIFESTS, objectsOf, type Manifest } from '../helpers/manifests.ts'

/** Prometheus' own, for each target that it asks. */
const OF_PROMETHEUS = ['up']
/** Made by data-plane threads once there is traffic; see agent/observe/traffic-series.ts. */
const OF_TRAFFIC = ['istio_tcp_sent_bytes_total', 'istio_tcp_received_bytes_total']

async function ourMetrics(): Promise<Set<string>> {
  const agent = new AgentMetrics({
    version: '0',
    sources: {
      certificates: () => [],
      discovery: () => ({ isConnected: true, isSynced: true, resources: {} }),
      podsByState: () => ({}),
      heaps: async () => [],
    },
  })
  const server = createMetrics()
  observeSources(server, {
    worldObjects: () => new Map(),
    podStates: () => new Map(),
    publishedResources: () => new Map(),
    ends: () => ({ root: 0, signer: 0, serving: 0 }),
  })
  const text = (await agent.text()) + (await server.registry.metrics())
  const names = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].flatMap(([, name, type]) =>
    type === 'histogram' ? [`${name!}_bucket`, `${name!}_sum`, `${name!}_count`] : [name!],
  )
  return new Set([...names, ...OF_PROMETHEUS, ...OF_TRAFFIC])
}

/** What an expression asks for: words that are no function, label or keyword. */
function metricsOf(expression: string): string[] {
  const bare = expression
    .replaceAll(/\{[^}]*\}/g, '')
    .replaceAll(/\[[^\]]*\]/g, '')
    .replaceAll(/\b(?:by|without) ?\([^)]*\)/g, '')
  return [...bare.matchAll(/\b[a-z][a-z0-9_]*\b(?! *\()/g)]
    .map(([word]) => word)
    .filter(word => !['sum', 'min', 'max', 'and', 'or', 'unless'].includes(word))
}

interface Rule {
  readonly alert: string
  readonly expr: string
  readonly labels: { readonly severity: string }
  readonly annotations: { readonly summary: string; readonly description: string }
}

await t.test('every alert asks for metrics that exist, and says what to do', async t => {
  const known = await ourMetrics()
  const { spec } = find(objectsOf('monitoring.yaml'), 'PrometheusRule', 'culvert') as Manifest & {
    spec: { groups: { rules: Rule[] }[] }
  }
  const rules = spec.groups.flatMap(group => group.rules)
  t.ok(rules.length >= 15)
  t.equal(new Set(rules.map(({ alert }) => alert)).size, rules.length)
  for (const { alert, expr, labels, annotations } of rules) {
    const used = metricsOf(expr)
    t.ok(used.length > 0, expr)
    for (const name of used) t.ok(known.has(name), `${alert}: ${name}`)
    t.ok(['critical', 'warning'].includes(labels.severity), alert)
    t.ok(annotations.summary.length > 10 && annotations.description.length > 20, alert)
  }
})

await t.test('every panel of the dashboard asks for metrics that exist', async t => {
  const known = await ourMetrics()
  const dashboard = JSON.parse(readFileSync(`${MANIFESTS}monitoring/culvert.json`, 'utf8')) as {
    panels: { title: string; targets: { expr: string }[] }[]
  }
  t.ok(dashboard.panels.length > 10)
  for (const { title, targets } of dashboard.panels)
    for (const { expr } of targets)
      for (const name of metricsOf(expr)) t.ok(known.has(name), `${title}: ${name}`)
})

await t.test('what does not exist would be noticed', async t => {
  t.strictSame(metricsOf('sum by (a, b) (rate(no_such_total{x="y"}[5m])) > 0 and up == 1'), [
    'no_such_total',
    'up',
  ])
})
