/** Kubernetes objects as the verbs handle them: whole and untyped where they are passed on, typed where they are read. */

export interface Meta {
  readonly name: string
  readonly namespace?: string
  readonly uid?: string
  readonly generation?: number
  readonly resourceVersion?: string
  readonly labels?: Readonly<Record<string, string>>
  readonly annotations?: Readonly<Record<string, string>>
  readonly deletionTimestamp?: string
  readonly ownerReferences?: readonly {
    readonly kind: string
    readonly name: string
    readonly controller?: boolean
  }[]
}

export interface KubeObject {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: Meta
  readonly [field: string]: unknown
}

type ContainerState = Readonly<Record<string, { readonly reason?: string; readonly message?: string }>>

export interface Pod extends KubeObject {
  readonly spec: {
    readonly nodeName?: string
    readonly hostNetwork?: boolean
    readonly serviceAccountName?: string
    readonly containers: readonly { readonly name: string; readonly image: string }[]
  }
  readonly status: {
    readonly phase?: string
    readonly podIP?: string
    readonly message?: string
    readonly conditions?: readonly {
      readonly type: string
      readonly status: string
      readonly message?: string
    }[]
    readonly containerStatuses?: readonly {
      readonly restartCount: number
      readonly state?: ContainerState
      readonly lastState?: ContainerState
    }[]
  }
}

export interface Node extends KubeObject {
  readonly status: {
    readonly nodeInfo: {
      readonly operatingSystem: string
      readonly architecture: string
      readonly kernelVersion: string
      readonly containerRuntimeVersion: string
    }
  }
}

/** Kinds that we handle, as the API's paths name them. */
const PLURAL: Readonly<Record<string, string>> = {
  ClusterRole: 'clusterroles',
  ClusterRoleBinding: 'clusterrolebindings',
  ConfigMap: 'configmaps',
  DaemonSet: 'daemonsets',
  Deployment: 'deployments',
  Namespace: 'namespaces',
  NetworkPolicy: 'networkpolicies',
  Pod: 'pods',
  PodDisruptionBudget: 'poddisruptionbudgets',
  PodMonitor: 'podmonitors',
  PrometheusRule: 'prometheusrules',
  ResourceQuota: 'resourcequotas',
  Role: 'roles',
  RoleBinding: 'rolebindings',
  Secret: 'secrets',
  SelfSubjectAccessReview: 'selfsubjectaccessreviews',
  Service: 'services',
  ServiceAccount: 'serviceaccounts',
  ServiceMonitor: 'servicemonitors',
}

/** Where the object is: `/apis/apps/v1/namespaces/shop/deployments/web`. */
export function pathOf({
  apiVersion,
  kind,
  metadata,
}: Pick<KubeObject, 'apiVersion' | 'kind' | 'metadata'>): string {
  const plural = PLURAL[kind]
  if (plural === undefined) throw new Error(`no path is known for ${kind}`)
  const group = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`
  const namespace = metadata.namespace === undefined ? '' : `/namespaces/${metadata.namespace}`
  return `${group}${namespace}/${plural}/${metadata.name}`
}

/** `DaemonSet culvert-system/culvert-agent` */
export function titleOf({ kind, metadata }: Pick<KubeObject, 'kind' | 'metadata'>): string {
  return `${kind} ${metadata.namespace === undefined ? '' : `${metadata.namespace}/`}${metadata.name}`
}

export function isReady(pod: Pod): boolean {
  return pod.status.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') === true
}

/** Why a pod does not run, as its containers or its conditions say; undefined when nothing says so. */
export function troubleOf(pod: Pod): string | undefined {
  for (const { state = {}, lastState = {} } of pod.status.containerStatuses ?? []) {
    const { waiting, terminated } = state
    // The kubelet puts the end of its log there.
    const lastWords = lastState['terminated']?.message?.trim().split('\n').at(-1)
    if (waiting?.reason === 'CrashLoopBackOff' && lastWords) return `it ends again and again: ${lastWords}`
    if (waiting?.reason && waiting.reason !== 'ContainerCreating' && waiting.reason !== 'PodInitializing')
      return [waiting.reason, waiting.message].filter(Boolean).join(': ')
    if (terminated?.reason && terminated.reason !== 'Completed')
      return [terminated.reason, terminated.message].filter(Boolean).join(': ')
  }
  const unscheduled = pod.status.conditions?.find(
    ({ type, status }) => type === 'PodScheduled' && status === 'False',
  )
  return unscheduled?.message ?? pod.status.message
}
