/**
 * Workload identities: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`, the only shape the mesh
 * issues or accepts (SPIFFE-ID.md §2; the path is the Istio family's).
 */
import { CulvertError } from './errors.ts'

export interface SpiffeId {
  readonly trustDomain: string
  readonly namespace: string
  readonly serviceAccount: string
}

// SPIFFE-ID.md §2.1: lower-case letters, digits, dots, dashes and underscores. Namespaces are RFC 1123 labels,
// service accounts RFC 1123 subdomains, as Kubernetes has them.
const LABEL = '[a-z0-9](?:[a-z0-9-]*[a-z0-9])?'
const SHAPE = new RegExp(
  `^spiffe://([a-z0-9._-]{1,255})/ns/(?=[^/]{1,63}/)(${LABEL})/sa/(?=.{1,253}$)(${LABEL}(?:\\.${LABEL})*)$`,
)

/** The parts of a SPIFFE ID, or undefined when the text is not one of the mesh's shape. */
export function parseSpiffe(text: string): SpiffeId | undefined {
  const match = SHAPE.exec(text)
  if (!match) return undefined
  return { trustDomain: match[1]!, namespace: match[2]!, serviceAccount: match[3]! }
}

/** The text of a SPIFFE ID. Throws `SPIFFE` when a part is not a legal name. */
export function formatSpiffe(trustDomain: string, namespace: string, serviceAccount: string): string {
  const text = `spiffe://${trustDomain}/ns/${namespace}/sa/${serviceAccount}`
  if (!SHAPE.test(text)) throw new CulvertError('SPIFFE', `not a legal workload identity: '${text}'`)
  return text
}

/**
 * The SPIFFE IDs among a certificate's subject alternative names as Node prints them
 * (`URI:spiffe://…, DNS:…`). Names that do not parse are left out. Splitting the text is safe: a comma inside a
 * name is printed as an escape in a quoted string, so no name can pass for two.
 */
export function spiffeIdsOf(subjectAltName: string | undefined): string[] {
  if (!subjectAltName) return []
  return subjectAltName
    .split(', ')
    .filter(name => name.startsWith('URI:'))
    .map(name => name.slice(4))
    .filter(uri => SHAPE.test(uri))
}
