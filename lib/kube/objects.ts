/**
 * The few Kubernetes objects that Culvert reads, stripped to the fields it uses. The lab's files and a real API
 * server's answers both become these, so nothing downstream knows the difference.
 * Field names and meanings: Kubernetes API reference, core/v1 and discovery.k8s.io/v1.
 */

export interface ObjectMeta {
  readonly name: string
  readonly namespace?: string
  readonly uid: string
  readonly resourceVersion?: string
  readonly labels?: Readonly<Record<string, string>>
  readonly annotations?: Readonly<Record<string, string>>
  /** RFC 3339. */
  readonly deletionTimestamp?: string
  readonly deletionGracePeriodSeconds?: number
  readonly ownerReferences?: readonly {
    readonly kind: string
    readonly name: string
    readonly controller?: boolean
  }[]
}

export interface KubeNode {
  readonly kind: 'Node'
  readonly metadata: ObjectMeta
  readonly spec: { readonly podCIDRs: readonly string[] }
  readonly status: { readonly addresses: readonly { readonly type: string; readonly address: string }[] }
}

export interface KubeNamespace {
  readonly kind: 'Namespace'
  readonly metadata: ObjectMeta
}

export interface KubeServiceAccount {
  readonly kind: 'ServiceAccount'
  readonly metadata: ObjectMeta
}

/** A port that a probe of the pod spec names, already resolved to a number. */
export interface ProbePort {
  readonly port: number
  readonly kind: 'http' | 'tcp' | 'grpc'
}

export interface KubeContainer {
  readonly name: string
  readonly image?: string
  readonly command?: readonly string[]
  readonly args?: readonly string[]
  readonly env?: readonly { readonly name: string; readonly value?: string }[]
  readonly ports?: readonly {
    readonly name?: string
    readonly containerPort: number
    readonly protocol?: string
    readonly hostPort?: number
    readonly hostIP?: string
  }[]
}

export interface KubePod {
  readonly kind: 'Pod'
  readonly metadata: ObjectMeta
  readonly spec: {
    readonly nodeName?: string
    readonly serviceAccountName: string
    readonly hostNetwork: boolean
    readonly terminationGracePeriodSeconds?: number
    readonly containers: readonly KubeContainer[]
    readonly probePorts: readonly ProbePort[]
    /** The container that carries the pod's traffic for a mesh of its own; `MESH_PROXIES` has their names. */
    readonly meshProxy?: string
  }
  readonly status: {
    readonly phase: 'Pending' | 'Running' | 'Succeeded' | 'Failed' | 'Unknown'
    readonly podIPs: readonly string[]
    readonly hostIP?: string
    readonly ready: boolean
    /** The annotation `culvert.dev/status`, apart from the others: those many pods have in common. */
    readonly mesh?: string
  }
}

export interface KubeService {
  readonly kind: 'Service'
  readonly metadata: ObjectMeta
  readonly spec: {
    readonly type: string
    readonly clusterIPs: readonly string[]
    readonly selector?: Readonly<Record<string, string>>
    readonly ports: readonly {
      readonly name?: string
      readonly port: number
      readonly targetPort: number | string
      readonly protocol: string
      readonly appProtocol?: string
      readonly nodePort?: number
    }[]
    readonly publishNotReadyAddresses: boolean
    readonly sessionAffinity?: string
    /** Addresses that lead to the service, but for its ports may be anybody's. */
    readonly externalIPs?: readonly string[]
    readonly loadBalancerSourceRanges?: readonly string[]
    readonly internalTrafficPolicy?: string
    readonly trafficDistribution?: string
    readonly ipFamilies?: readonly string[]
    readonly externalName?: string
  }
  readonly status?: {
    /** Addresses of load balancers that pass packets on as they are (`ipMode: VIP`). */
    readonly loadBalancerIPs: readonly string[]
  }
}

export interface KubeEndpointSlice {
  readonly kind: 'EndpointSlice'
  readonly metadata: ObjectMeta
  readonly addressType: 'IPv4' | 'IPv6' | 'FQDN'
  /** From the label `kubernetes.io/service-name`. */
  readonly serviceName: string
  readonly endpoints: readonly {
    readonly addresses: readonly string[]
    readonly ready: boolean
    readonly serving: boolean
    readonly terminating: boolean
    readonly nodeName?: string
    readonly zone?: string
    /** The clients that are to prefer it, by zone and by node. */
    readonly hints?: { readonly forZones: readonly string[]; readonly forNodes: readonly string[] }
    readonly targetRef?: {
      readonly kind: string
      readonly name: string
      readonly namespace?: string
      readonly uid?: string
    }
  }[]
  readonly ports: readonly { readonly name?: string; readonly port: number; readonly protocol: string }[]
}

export type KubeObject =
  KubeNode | KubeNamespace | KubeServiceAccount | KubePod | KubeService | KubeEndpointSlice
export type KubeKind = KubeObject['kind']
