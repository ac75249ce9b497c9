/**
 * Pods as an API server of Kubernetes 1.34 sends them: 5 KB of JSON each, of which a few fields differ from pod to pod. The
 * text is cut once at those places, so that a hundred thousand of them are written in a second and none is kept.
 */

export interface PodFields {
  readonly name: string
  readonly namespace: string
  readonly uid: string
  readonly version: number
  readonly node: string
  readonly app: string
  /** Empty while it has none. */
  readonly ip: string
  readonly isReady: boolean
  /** It is to be gone. */
  readonly isTerminating: boolean
}

type Key = keyof PodFields | 'deletion' | 'ips' | 'ready' | 'phase'

const AT = '2026-01-01T00:00:00Z'

const POD = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: {
    creationTimestamp: AT,
    deletionTimestamp: '@@deletion@@',
    generateName: '@app@-7d4b9c6f5-',
    generation: 1,
    labels: {
      app: '@app@',
      'app.kubernetes.io/managed-by': 'Helm',
      'app.kubernetes.io/name': '@app@',
      'app.kubernetes.io/version': '1.0.0',
      'pod-template-hash': '7d4b9c6f5',
      team: 'checkout',
    },
    annotations: {
      'prometheus.io/scrape': 'true',
      'prometheus.io/port': '9090',
      'checksum/config': 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    },
    managedFields: managedFields(),
    name: '@name@',
    namespace: '@namespace@',
    ownerReferences: [
      {
        apiVersion: 'apps/v1',
        blockOwnerDeletion: true,
        controller: true,
        kind: 'ReplicaSet',
        name: '@app@-7d4b9c6f5',
        uid: '32bdbfbe-f1db-4406-a3bf-e93dc643efe2',
      },
    ],
    resourceVersion: '@version@',
    uid: '@uid@',
  },
  spec: {
    containers: [
      {
        command: ['/bin/server'],
        args: ['--listen=:8080', '--metrics=:9090', '--config=/etc/app/config.yaml'],
        env: [
          { name: 'POD_NAME', valueFrom: { fieldRef: { apiVersion: 'v1', fieldPath: 'metadata.name' } } },
          { name: 'DATABASE_URL', valueFrom: { secretKeyRef: { key: 'url', name: '@app@' } } },
          { name: 'LOG_LEVEL', value: 'info' },
        ],
        image: 'registry.example/shop/@app@:1.0.0',
        imagePullPolicy: 'IfNotPresent',
        livenessProbe: probe('/live'),
        name: 'app',
        ports: [
          { containerPort: 8080, name: 'http', protocol: 'TCP' },
          { containerPort: 9090, name: 'metrics', protocol: 'TCP' },
        ],
        readinessProbe: probe('/ready'),
        resources: { limits: { memory: '256Mi' }, requests: { cpu: '100m', memory: '256Mi' } },
        terminationMessagePath: '/dev/termination-log',
        terminationMessagePolicy: 'File',
        volumeMounts: volumeMounts(),
      },
    ],
    dnsPolicy: 'ClusterFirst',
    enableServiceLinks: true,
    nodeName: '@node@',
    preemptionPolicy: 'PreemptLowerPriority',
    priority: 0,
    restartPolicy: 'Always',
    schedulerName: 'default-scheduler',
    securityContext: {},
    serviceAccount: '@app@',
    serviceAccountName: '@app@',
    terminationGracePeriodSeconds: 30,
    tolerations: ['not-ready', 'unreachable'].map(what => ({
      effect: 'NoExecute',
      key: `node.kubernetes.io/${what}`,
      operator: 'Exists',
      tolerationSeconds: 300,
    })),
    volumes: [
      { configMap: { defaultMode: 420, name: '@app@' }, name: 'config' },
      {
        name: 'kube-api-access-m9st4',
        projected: {
          defaultMode: 420,
          sources: [
            { serviceAccountToken: { expirationSeconds: 3607, path: 'token' } },
            { configMap: { items: [{ key: 'ca.crt', path: 'ca.crt' }], name: 'kube-root-ca.crt' } },
          ],
        },
      },
    ],
  },
  status: {
    conditions: [
      condition('PodReadyToStartContainers', 'True'),
      condition('Initialized', 'True'),
      condition('Ready', '@ready@'),
      condition('ContainersReady', '@ready@'),
      condition('PodScheduled', 'True'),
    ],
    containerStatuses: [
      {
        containerID: 'containerd://19089459c8cea3720f3ddfd1f00cb758f814062665cc9353312325d13f216f61',
        image: 'registry.example/shop/@app@:1.0.0',
        imageID: 'sha256:203c272c1157f999000e22acebe420f39ed837fa69bc32a0da64a56376c32406',
        lastState: {},
        name: 'app',
        ready: '@@isReady@@',
        restartCount: 0,
        started: true,
        state: { running: { startedAt: AT } },
        volumeMounts: volumeMounts(),
      },
    ],
    hostIP: '10.250.0.12',
    hostIPs: [{ ip: '10.250.0.12' }],
    phase: '@phase@',
    podIP: '@ip@',
    podIPs: '@@ips@@',
    qosClass: 'Burstable',
    startTime: AT,
  },
}

/** Texts and, at odd places, what stands between them. */
const PIECES = JSON.stringify(POD).split(/"@@(\w+)@@"|@(\w+)@/)

/** The pod as JSON. */
export function podText(fields: PodFields): string {
  const { ip, isReady, isTerminating } = fields
  const values: Readonly<Record<Key, string | number | boolean>> = {
    ...fields,
    deletion: isTerminating ? `"${AT}"` : 'null',
    ips: ip === '' ? '[]' : `[{"ip":"${ip}"}]`,
    ready: isReady ? 'True' : 'False',
    phase: ip === '' ? 'Pending' : 'Running',
  }
  let text = ''
  for (let at = 0; at < PIECES.length; at += 3) {
    text += PIECES[at]!
    const key = PIECES[at + 1] ?? PIECES[at + 2]
    if (key !== undefined) text += String(values[key as Key])
  }
  return text
}

function probe(path: string) {
  return {
    failureThreshold: 3,
    httpGet: { path, port: 'http', scheme: 'HTTP' },
    periodSeconds: 10,
    successThreshold: 1,
    timeoutSeconds: 1,
  }
}

function condition(type: string, status: string) {
  return { lastProbeTime: null, lastTransitionTime: AT, observedGeneration: 1, status, type }
}

function volumeMounts() {
  return [
    { mountPath: '/etc/app', name: 'config', readOnly: true },
    {
      mountPath: '/var/run/secrets/kubernetes.io/serviceaccount',
      name: 'kube-api-access-m9st4',
      readOnly: true,
    },
  ]
}

function managedFields() {
  const owned = (names: readonly string[]): object => Object.fromEntries(names.map(name => [`f:${name}`, {}]))
  const common = { apiVersion: 'v1', fieldsType: 'FieldsV1', operation: 'Update', time: AT }
  const container = ['command', 'args', 'env', 'image', 'imagePullPolicy', 'livenessProbe', 'name', 'ports']
  return [
    {
      ...common,
      manager: 'kube-controller-manager',
      fieldsV1: {
        'f:metadata': { 'f:labels': owned(['app', 'pod-template-hash']), 'f:ownerReferences': {} },
        'f:spec': {
          'f:containers': { 'k:{"name":"app"}': { '.': {}, ...owned(container) } },
          ...owned(['dnsPolicy', 'enableServiceLinks', 'restartPolicy', 'schedulerName', 'volumes']),
        },
      },
    },
    {
      ...common,
      manager: 'kubelet',
      subresource: 'status',
      fieldsV1: {
        'f:status': {
          'f:conditions': Object.fromEntries(
            ['ContainersReady', 'Initialized', 'Ready'].map(type => [
              `k:{"type":"${type}"}`,
              { '.': {}, ...owned(['lastProbeTime', 'lastTransitionTime', 'status', 'type']) },
            ]),
          ),
          ...owned(['containerStatuses', 'hostIP', 'hostIPs', 'phase', 'podIP', 'podIPs', 'startTime']),
        },
      },
    },
  ]
}
