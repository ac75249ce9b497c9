/**
 * The `baggage` header of a tunnel (W3C Baggage §3.2): who the workload at its sender's end is, in the names
 * of OpenTelemetry's resource attributes. It names peers that discovery does not know, in logs and metrics;
 * being a claim of the peer, it decides nothing.
 */

export type WorkloadKind = 'deployment' | 'cronjob' | 'pod' | 'job'

/** What is known of a workload; the rest is absent. */
export interface Baggage {
  cluster?: string
  namespace?: string
  /** What `workload` names. */
  workloadKind?: WorkloadKind
  workload?: string
  service?: string
  version?: string
  region?: string
  zone?: string
}

/** W3C Baggage §3.3.2: what every party must be able to carry. Longer headers and further members are not read. */
const MAX_LENGTH = 8192
const MAX_MEMBERS = 64

/** Characters of a value: the longest name that Kubernetes allows. */
const MAX_VALUE = 253

type Field = Exclude<keyof Baggage, 'workload' | 'workloadKind'>

const FIELD_OF: ReadonlyMap<string, Field> = new Map<string, Field>([
  ['k8s.cluster.name', 'cluster'],
  ['k8s.namespace.name', 'namespace'],
  ['service.name', 'service'],
  ['service.version', 'version'],
  ['cloud.region', 'region'],
  ['cloud.availability_zone', 'zone'],
])

const WORKLOAD_KEY = /^k8s\.(deployment|cronjob|pod|job)\.name$/

/** Everything but baggage-octet (W3C Baggage §3.2), and the percent sign that stands for the rest. */
const MUST_ESCAPE = /[^!#$&-+\--:<-[\]-~]/gu

/** The header, its members in the order that mesh peers use; empty when nothing is known. */
export function formatBaggage(baggage: Baggage): string {
  const members: string[] = []
  const add = (key: string, value: string | undefined) => {
    if (value) members.push(`${key}=${value.replaceAll(MUST_ESCAPE, percentEncode)}`)
  }
  add('k8s.cluster.name', baggage.cluster)
  add('k8s.namespace.name', baggage.namespace)
  add(`k8s.${baggage.workloadKind ?? 'pod'}.name`, baggage.workload)
  add('service.name', baggage.service)
  add('service.version', baggage.version)
  add('cloud.region', baggage.region)
  add('cloud.availability_zone', baggage.zone)
  return members.join(',')
}

/**
 * Reads the header. Members that are unknown, malformed, too long or repeated are passed over, properties too:
 * what is left is the first good value of each.
 */
export function parseBaggage(text: string): Baggage {
  const baggage: Baggage = {}
  if (text.length > MAX_LENGTH) return baggage
  for (const member of text.split(',', MAX_MEMBERS)) {
    const equals = member.indexOf('=')
    if (equals < 0) continue
    const key = member.slice(0, equals).trim()
    const field = FIELD_OF.get(key)
    const kind = field ? undefined : (WORKLOAD_KEY.exec(key)?.[1] as WorkloadKind | undefined)
    if (!field && !kind) continue
    const value = readValue(member.slice(equals + 1).split(';', 1)[0]!)
    if (value === undefined) continue
    if (field) baggage[field] ??= value
    else if (baggage.workload === undefined) Object.assign(baggage, { workloadKind: kind, workload: value })
  }
  return baggage
}

function readValue(raw: string): string | undefined {
  let value: string
  try {
    value = decodeURIComponent(raw.trim())
  } catch {
    return undefined // not the percent-encoding of UTF-8
  }
  return value === '' || value.length > MAX_VALUE || /\p{Cc}/u.test(value) ? undefined : value
}

function percentEncode(character: string): string {
  return Array.from(
    Buffer.from(character),
    byte => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`,
  ).join('')
}
