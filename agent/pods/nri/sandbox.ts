/** A pod as the container runtime tells of its sandbox, made into one that the agent knows. */
import { closeSync } from 'node:fs'
import { canonicalIp } from '../../../lib/address.ts'
import type { PodSandbox } from '../../../lib/proto/gen/nri/nri_pb.js'
import { openNetns } from '../../sys/netns.ts'
import type { LocalPod } from '../source.ts'

/**
 * Where the kubelet has a pod from; `api` is the usual. Others are of files on the node: they have no service account, and
 * the API server knows them by another uid.
 */
const CONFIG_SOURCE = 'kubernetes.io/config.source'

/** Undefined for a pod that is never in the mesh: of the node's own network, or from a file on the node. */
export function podOfSandbox(sandbox: PodSandbox): LocalPod | undefined {
  const { uid, namespace, name, annotations, pid } = sandbox
  const netns = netnsOf(sandbox)
  if (netns === undefined || uid === '' || namespace === '' || name === '') return undefined
  if ((annotations[CONFIG_SOURCE] ?? 'api') !== 'api') return undefined
  const ips = sandbox.ips.flatMap(ip => legalIp(ip) ?? [])
  return {
    uid,
    namespace,
    name,
    ips: ips.toSorted((a, b) => Number(a.includes(':')) - Number(b.includes(':'))),
    annotations,
    netns,
    pid: pid === 0 ? undefined : pid,
    terminating: false,
  }
}

/** Reports whether the sandbox is there: runtimes tell of stopped ones, too, whose namespace is gone. */
export function isThere({ netns }: LocalPod): boolean {
  try {
    closeSync(openNetns(netns))
    return true
  } catch {
    return false
  }
}

function netnsOf(sandbox: PodSandbox): string | undefined {
  const path = sandbox.linux?.namespaces.find(({ type }) => type === 'network')?.path
  return path?.startsWith('/') ? path : undefined
}

function legalIp(ip: string): string | undefined {
  try {
    return canonicalIp(ip)
  } catch {
    return undefined
  }
}
