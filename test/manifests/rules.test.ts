import { readFileSync } from 'node:fs'
import t from 'tap'
import { isSeq, isScalar, parseAllDocuments } from 'yaml'
import { SETTINGS_HELP as AGENT_SETTINGS } from '../../agent/config.ts'
import { SETTINGS_HELP as CA_SETTINGS } from '../../ca-server/config.ts'
import { VERSION } from '../../lib/version.ts'
import {
  containersOf,
  find,
  INSTALLS,
  MANIFESTS,
  objectsOf,
  workloads,
  type Manifest,
  type Workload,
} from '../helpers/manifests.ts'

/** Given by the downward API for others than the settings: logs, leases, reports. */
const FROM_DOWNWARD_API = ['POD_NAME', 'POD_NAMESPACE']

for (const file of INSTALLS) {
  const objects = objectsOf(file)

  await t.test(`${file}: each container is bounded, probed and has no more rights than it says`, async t => {
    t.equal(containersOf(objects).length, 2)
    for (const container of containersOf(objects)) {
      const { name, image, resources, securityContext, readinessProbe } = container
      t.equal(image, `localhost/culvert:${VERSION}`, `${name}: the version of the package, never latest`)
      t.ok(resources?.requests?.['cpu'] && resources.requests['memory'], `${name}: requests`)
      t.ok(resources?.limits?.['memory'], `${name}: a limit of memory`)
      t.ok(readinessProbe, `${name}: readiness`)
      t.equal(securityContext?.readOnlyRootFilesystem, true, `${name}: nothing is written to its root`)
      t.strictSame(securityContext?.capabilities?.drop, ['ALL'], name)
    }
  })

  await t.test(`${file}: what selects, selects something`, async t => {
    const all = workloads(objects)
    const matches = (selector: Readonly<Record<string, string>>) =>
      all.filter(({ spec }) =>
        Object.entries(selector).every(([key, value]) => spec.template.metadata.labels[key] === value),
      )
    for (const { spec, metadata } of all)
      t.strictSame(
        matches(spec.selector.matchLabels).map(found => found.metadata.name),
        [metadata.name],
      )
    for (const { kind, metadata, ...rest } of objects) {
      const { spec = {} } = rest as { spec?: Record<string, never> }
      const selector: Record<string, string> | undefined =
        kind === 'Service'
          ? spec['selector']
          : kind === 'PodDisruptionBudget'
            ? spec['selector']!['matchLabels']
            : kind === 'NetworkPolicy'
              ? spec['podSelector']!['matchLabels']
              : undefined
      if (selector) t.equal(matches(selector).length, 1, `${kind} ${metadata.name}`)
    }
    const service = find(objects, 'Service', 'culvert-ca') as Manifest & {
      spec: { ports: { targetPort: string; port: number }[] }
    }
    const ports = containersOf(objects).find(({ name }) => name === 'ca-server')!.ports!
    for (const { targetPort, port } of service.spec.ports)
      t.equal(ports.find(({ name }) => name === targetPort)?.containerPort, port, targetPort)
  })

  await t.test(`${file}: settings that are given exist`, async t => {
    const known = new Set([...AGENT_SETTINGS, ...CA_SETTINGS].map(([name]) => name).concat(FROM_DOWNWARD_API))
    for (const { env = [] } of containersOf(objects)) for (const { name } of env) t.ok(known.has(name), name)
  })

  await t.test(`${file}: the agent has no access to the API server`, async t => {
    const account = find(objects, 'ServiceAccount', 'culvert-agent') as Manifest & {
      automountServiceAccountToken: boolean
    }
    const { spec } = agentOf(objects)
    t.equal(account.automountServiceAccountToken, false)
    t.equal(spec.automountServiceAccountToken, false)
    const bound = objects
      .filter(({ kind }) => kind.endsWith('Binding'))
      .flatMap(({ subjects }) => (subjects as { name: string }[]).map(({ name }) => name))
    t.strictSame([...new Set(bound)], ['culvert-ca'])
    const tokens = spec.volumes!.flatMap(({ projected }) => projected?.sources ?? [])
    t.match(tokens, [{ serviceAccountToken: { audience: 'culvert-ca', path: 'culvert-token' } }])
  })
}

const objects = objectsOf('culvert.yaml')

function agentOf(all: readonly Manifest[]): Workload['spec']['template'] {
  return (find(all, 'DaemonSet', 'culvert-agent') as Manifest & Workload).spec.template
}

await t.test('the ca-server may do this and nothing else', async t => {
  const rulesOf = (kind: string) =>
    (find(objects, kind, 'culvert-ca') as Manifest & { rules: Record<string, string[]>[] }).rules
      .flatMap(({ resources, verbs, resourceNames }) =>
        resources!.map(
          resource => `${resource}${resourceNames ? `/${resourceNames.join()}` : ''}: ${verbs!.join(' ')}`,
        ),
      )
      .sort()
  t.strictSame(rulesOf('ClusterRole'), [
    'endpointslices: get list watch',
    'events: create patch',
    'namespaces: get list watch',
    'nodes: get list watch',
    'pods: get list watch',
    'pods: patch',
    'services: get list watch',
    'tokenreviews: create',
  ])
  t.strictSame(rulesOf('Role'), [
    'configmaps/culvert-root: get patch',
    'configmaps: create',
    'leases/culvert-ca: get update',
    'leases: create',
    'secrets/culvert-ca-root: get',
    'secrets: create',
  ])
})

await t.test(
  'the ca-server is an ordinary user, is there twice, and stays while a node is drained',
  async t => {
    const { spec } = find(objects, 'Deployment', 'culvert-ca') as Manifest &
      Workload & { spec: { replicas: number } }
    t.equal(spec.replicas, 2)
    t.match(spec.template.spec, {
      securityContext: { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } },
      priorityClassName: 'system-cluster-critical',
      containers: [{ securityContext: { allowPrivilegeEscalation: false } }],
    })
    t.match(find(objects, 'PodDisruptionBudget', 'culvert-ca'), { spec: { minAvailable: 1 } })
  },
)

await t.test(
  'the agent is on every node, is replaced without a gap and drains for as long as it says',
  async t => {
    const { spec } = find(objects, 'DaemonSet', 'culvert-agent') as Manifest &
      Workload & { spec: { updateStrategy: object } }
    t.match(spec.updateStrategy, { rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } })
    const { terminationGracePeriodSeconds, ...pod } = spec.template.spec
    t.match(pod, {
      hostPID: true,
      hostNetwork: false,
      priorityClassName: 'system-node-critical',
      tolerations: [{ operator: 'Exists' }],
    })
    const grace = pod.containers[0]!.env!.find(({ name }) => name === 'TERMINATION_GRACE_PERIOD_SECONDS')
    t.equal(grace?.value, String(terminationGracePeriodSeconds))
  },
)

await t.test('each capability has its reason beside it', async t => {
  const [document] = parseAllDocuments(readFileSync(`${MANIFESTS}base/agent.yaml`, 'utf8'))
  const path = ['spec', 'template', 'spec', 'containers', 0, 'securityContext', 'capabilities', 'add']
  const list = document!.getIn(path)
  if (!isSeq(list)) throw new Error('no list of capabilities')
  const reasons = list.items.map((item, at) => {
    // The comment before the first element of a list is the list's.
    const comment = isScalar(item)
      ? (item.commentBefore ?? (at === 0 ? list.commentBefore : undefined))
      : undefined
    return [isScalar(item) && item.value, (comment?.trim().length ?? 0) > 10]
  })
  t.strictSame(reasons, [
    ['NET_ADMIN', true],
    ['SYS_ADMIN', true],
    ['SYS_PTRACE', true],
  ])
  t.match(
    readFileSync(`${MANIFESTS}culvert.yaml`, 'utf8'),
    /# setns\(2\).*\n *- SYS_ADMIN/,
    'in what is applied, too',
  )
})

await t.test('what carries the mesh is not in it', async t => {
  t.match(find(objects, 'Namespace', 'culvert-system'), {
    metadata: {
      annotations: { 'culvert.dev/mesh': 'disabled' },
      labels: { 'pod-security.kubernetes.io/enforce': 'privileged' },
    },
  })
})
