/** What is listed and watched: everything that discovery and issuance are decided by. */
import type { KubeKind } from '../../lib/kube/objects.ts'

export interface WatchedResource {
  /** As in the API's paths and in RBAC rules. */
  readonly name: string
  readonly kind: KubeKind
  /** Of the objects of all namespaces. */
  readonly path: string
}

/** The smaller ones first: what pods are joined with is there when they come. */
export const WATCHED: readonly WatchedResource[] = [
  { name: 'nodes', kind: 'Node', path: '/api/v1/nodes' },
  { name: 'namespaces', kind: 'Namespace', path: '/api/v1/namespaces' },
  { name: 'services', kind: 'Service', path: '/api/v1/services' },
  {
    name: 'endpointslices',
    kind: 'EndpointSlice',
    path: '/apis/discovery.k8s.io/v1/endpointslices',
  },
  { name: 'pods', kind: 'Pod', path: '/api/v1/pods' },
]
