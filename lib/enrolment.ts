/**
 * What a namespace's and a pod's annotations ask for. Values that are not understood are reported as problems
 * and otherwise ignored: the other level (pod or namespace) or the default then decides.
 */
import { Cidr } from './address.ts'
import { errorText } from './errors.ts'
import { printable } from './printable.ts'

export const ANNOTATION = {
  mesh: 'culvert.dev/mesh',
  mtls: 'culvert.dev/mtls',
  mtlsOutbound: 'culvert.dev/mtls-outbound',
  mtlsCutOpen: 'culvert.dev/mtls-cut-open',
  excludeInboundPorts: 'culvert.dev/exclude-inbound-ports',
  excludeOutboundPorts: 'culvert.dev/exclude-outbound-ports',
  excludeOutboundCidrs: 'culvert.dev/exclude-outbound-cidrs',
  status: 'culvert.dev/status',
} as const

const KNOWN = new Set<string>(Object.values(ANNOTATION))

/** One object's wishes; undefined means "not said here". */
export interface EnrolmentWishes {
  mesh?: boolean
  strictInbound?: boolean
  requireOutbound?: boolean
  cutOpen?: boolean
  excludeInboundPorts?: number[]
  excludeOutboundPorts?: number[]
  excludeOutboundCidrs?: string[]
  /** One sentence per annotation that was not understood. */
  problems: string[]
}

/** What holds for a pod after its namespace and itself were heard. */
export interface Enrolment {
  readonly mesh: boolean
  readonly strictInbound: boolean
  readonly requireOutbound: boolean
  readonly cutOpen: boolean
  readonly excludeInboundPorts: readonly number[]
  readonly excludeOutboundPorts: readonly number[]
  readonly excludeOutboundCidrs: readonly string[]
  readonly problems: readonly string[]
}

export const NOT_ENROLLED: Enrolment = {
  mesh: false,
  strictInbound: false,
  requireOutbound: false,
  cutOpen: false,
  excludeInboundPorts: [],
  excludeOutboundPorts: [],
  excludeOutboundCidrs: [],
  problems: [],
}

/**
 * A value may have 256 KiB, and what is said of it goes to every agent of the cluster; and whoever may annotate a pod
 * is not whoever reads of it.
 */
const LONGEST_PROBLEM = 200
const MOST_PROBLEMS = 10

/** Reads the `culvert.dev/` annotations of one namespace or pod; other annotations are not looked at. */
export function parseEnrolment(annotations: Readonly<Record<string, string>> | undefined): EnrolmentWishes {
  const wishes: EnrolmentWishes = { problems: [] }
  const problem = (text: string) => {
    if (wishes.problems.length < MOST_PROBLEMS) wishes.problems.push(printable(text, LONGEST_PROBLEM))
  }
  for (const [name, value] of Object.entries(annotations ?? {})) {
    if (!name.startsWith('culvert.dev/')) continue
    if (!KNOWN.has(name)) {
      problem(`${name}: no such annotation`)
      continue
    }
    try {
      read(name, value.trim(), wishes)
    } catch (err) {
      problem(`${name}: ${errorText(err)}`)
    }
  }
  return wishes
}

function read(name: string, value: string, wishes: EnrolmentWishes): void {
  switch (name) {
    case ANNOTATION.mesh:
      wishes.mesh = oneOf(value, { enabled: true, disabled: false })
      break
    case ANNOTATION.mtls:
      wishes.strictInbound = oneOf(value, { strict: true, permissive: false })
      break
    case ANNOTATION.mtlsOutbound:
      wishes.requireOutbound = oneOf(value, { require: true, prefer: false })
      break
    case ANNOTATION.mtlsCutOpen:
      wishes.cutOpen = oneOf(value, { true: true, false: false })
      break
    case ANNOTATION.excludeInboundPorts:
      wishes.excludeInboundPorts = list(value).map(port)
      break
    case ANNOTATION.excludeOutboundPorts:
      wishes.excludeOutboundPorts = list(value).map(port)
      break
    case ANNOTATION.excludeOutboundCidrs:
      wishes.excludeOutboundCidrs = list(value).map(cidr => Cidr.parse(cidr).text)
      break
  }
}

/** The pod's word, then its namespace's, then the default. Problems of both are kept. */
export function mergeEnrolment(namespace: EnrolmentWishes, pod: EnrolmentWishes): Enrolment {
  return {
    mesh: pod.mesh ?? namespace.mesh ?? false,
    strictInbound: pod.strictInbound ?? namespace.strictInbound ?? false,
    requireOutbound: pod.requireOutbound ?? namespace.requireOutbound ?? false,
    cutOpen: pod.cutOpen ?? namespace.cutOpen ?? false,
    excludeInboundPorts: pod.excludeInboundPorts ?? namespace.excludeInboundPorts ?? [],
    excludeOutboundPorts: pod.excludeOutboundPorts ?? namespace.excludeOutboundPorts ?? [],
    excludeOutboundCidrs: pod.excludeOutboundCidrs ?? namespace.excludeOutboundCidrs ?? [],
    problems: [...namespace.problems, ...pod.problems],
  }
}

function oneOf<T>(value: string, choices: Record<string, T>): T {
  if (Object.hasOwn(choices, value)) return choices[value]!
  throw new Error(`'${value}' is not one of ${Object.keys(choices).join(', ')}`)
}

function list(value: string): string[] {
  return value
    .split(',')
    .map(part => part.trim())
    .filter(part => part !== '')
}

function port(text: string): number {
  const number = Number(text)
  if (!/^\d{1,5}$/.test(text) || number < 1 || number > 65535) throw new Error(`'${text}' is not a port`)
  return number
}
