/** Paths of what the ca-server writes. Names are those of Kubernetes objects: nothing in them needs escaping. */
export const path = {
  secret: (namespace: string, name: string) => `/api/v1/namespaces/${namespace}/secrets/${name}`,
  configMap: (namespace: string, name: string) => `/api/v1/namespaces/${namespace}/configmaps/${name}`,
  pod: (namespace: string, name: string) => `/api/v1/namespaces/${namespace}/pods/${name}`,
  lease: (namespace: string, name: string) =>
    `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases/${name}`,
  event: (namespace: string, name: string) => `/apis/events.k8s.io/v1/namespaces/${namespace}/events/${name}`,
} as const

/** The list that an object is created in. */
export function parentOf(objectPath: string): string {
  return objectPath.slice(0, objectPath.lastIndexOf('/'))
}
