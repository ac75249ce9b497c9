/** What an application calls itself, by its labels and its owner: for logs and metrics, never for decisions. */
import type { KubePod, ObjectMeta } from '../../lib/kube/objects.ts'
import { WorkloadType } from '../../lib/proto/gen/istio/workload_pb.js'

export interface AppName {
  readonly workloadName: string
  readonly workloadType: WorkloadType
  readonly canonicalName: string
  readonly canonicalRevision: string
}

const NAME_LABELS = ['service.istio.io/canonical-name', 'app.kubernetes.io/name', 'app']
const REVISION_LABELS = ['service.istio.io/canonical-revision', 'app.kubernetes.io/version', 'version']
const HASH_LABEL = 'pod-template-hash'
/** Every label of a pod that is looked at here. */
export const APP_LABELS: readonly string[] = [...NAME_LABELS, ...REVISION_LABELS, HASH_LABEL]

/** The name under which all pods of one application are known. */
export function appNameOf(pod: KubePod): AppName {
  const [workloadName, workloadType] = workloadOf(pod.metadata)
  return {
    workloadName,
    workloadType,
    canonicalName: firstLabel(pod.metadata, NAME_LABELS) ?? workloadName,
    canonicalRevision: firstLabel(pod.metadata, REVISION_LABELS) ?? 'latest',
  }
}

function workloadOf(metadata: ObjectMeta): [string, WorkloadType] {
  const owners = metadata.ownerReferences ?? []
  const owner = owners.find(({ controller }) => controller) ?? owners[0]
  if (!owner) return [metadata.name, WorkloadType.POD]
  if (owner.kind === 'ReplicaSet') return [deploymentOf(owner.name, metadata), WorkloadType.DEPLOYMENT]
  if (owner.kind === 'Job') {
    // A CronJob names its jobs after the minute they are for.
    const cron = /^(.+)-\d{8,}$/.exec(owner.name)
    return cron ? [cron[1]!, WorkloadType.CRONJOB] : [owner.name, WorkloadType.JOB]
  }
  return [owner.name, WorkloadType.POD]
}

/** A ReplicaSet of a Deployment is called `<deployment>-<hash>`, and the hash is a label of the pod. */
function deploymentOf(replicaSet: string, metadata: ObjectMeta): string {
  const hash = metadata.labels?.[HASH_LABEL]
  if (hash && replicaSet.endsWith(`-${hash}`)) return replicaSet.slice(0, -hash.length - 1)
  return /^(.+)-[bcdfghjklmnpqrstvwxz2456789]{1,10}$/.exec(replicaSet)?.[1] ?? replicaSet
}

function firstLabel(metadata: ObjectMeta, names: readonly string[]): string | undefined {
  for (const name of names) {
    const value = metadata.labels?.[name]
    if (value) return value
  }
  return undefined
}
