/**
 * Objects as they are kept: what many of them have in common is there once. Of a hundred thousand pods a few hundred
 * node names, a few thousand namespaces and sets of labels are said over and over, and parsing JSON makes a new string
 * of each.
 */
import { Interner } from '../../lib/interner.ts'
import type { KubeEndpointSlice, KubeObject, KubePod, ObjectMeta } from '../../lib/kube/objects.ts'

export class Compactor {
  readonly #texts = new Interner<string>()
  readonly #parts = new Interner<object>()

  /** The same object in less memory. What it shares with others must not be changed. */
  compact(object: KubeObject): KubeObject {
    const metadata = this.#meta(object.metadata)
    switch (object.kind) {
      case 'Pod':
        return {
          ...object,
          metadata,
          spec: this.#podSpec(object.spec),
          status: this.#podStatus(object.status),
        }
      case 'EndpointSlice':
        return {
          ...object,
          metadata,
          serviceName: this.#text(object.serviceName),
          endpoints: object.endpoints.map(endpoint => this.#endpoint(endpoint)),
          ports: this.#part(object.ports),
        }
      default:
        return { ...object, metadata }
    }
  }

  #meta(meta: ObjectMeta): ObjectMeta {
    const { namespace, labels, annotations, ownerReferences } = meta
    return {
      ...meta,
      ...(namespace !== undefined && { namespace: this.#text(namespace) }),
      ...(labels && { labels: this.#part(labels) }),
      ...(annotations && { annotations: this.#part(annotations) }),
      ...(ownerReferences && { ownerReferences: this.#part(ownerReferences) }),
    }
  }

  #podSpec(spec: KubePod['spec']): KubePod['spec'] {
    const { nodeName, meshProxy } = spec
    return {
      ...spec,
      ...(nodeName !== undefined && { nodeName: this.#text(nodeName) }),
      ...(meshProxy !== undefined && { meshProxy: this.#text(meshProxy) }),
      serviceAccountName: this.#text(spec.serviceAccountName),
      containers: this.#part(spec.containers),
      probePorts: this.#part(spec.probePorts),
    }
  }

  #podStatus(status: KubePod['status']): KubePod['status'] {
    return { ...status, ...(status.hostIP !== undefined && { hostIP: this.#text(status.hostIP) }) }
  }

  #endpoint(endpoint: KubeEndpointSlice['endpoints'][number]): KubeEndpointSlice['endpoints'][number] {
    const { nodeName, zone, targetRef, hints } = endpoint
    return {
      ...endpoint,
      ...(nodeName !== undefined && { nodeName: this.#text(nodeName) }),
      ...(zone !== undefined && { zone: this.#text(zone) }),
      ...(hints && { hints: this.#part(hints) }),
      ...(targetRef?.namespace !== undefined && {
        targetRef: { ...targetRef, namespace: this.#text(targetRef.namespace) },
      }),
    }
  }

  #text(text: string): string {
    return this.#texts.get(text, () => text)
  }

  #part<T extends object>(part: T): T {
    return this.#parts.get(JSON.stringify(part), () => part) as T
  }
}
