/**
 * What the API server would say of an object, without one: required fields, types and formats by the schemas of
 * `kubernetes-models`, and fields that do not exist (`--validate=strict`) by the types of `@kubernetes/client-node`.
 */
import * as client from '@kubernetes/client-node'

interface Attribute {
  readonly baseName: string
  readonly type: string
}
type Typed = { getAttributeTypeMap(): readonly Attribute[] }

const PROMETHEUS_OPERATOR = 'monitoring.coreos.com/'

/** Every fault, each with its field's path. An object of an unknown kind is one fault. */
export async function schemaFaults(object: Record<string, unknown>): Promise<string[]> {
  const { apiVersion, kind } = object as { apiVersion: string; kind: string }
  const isOperators = apiVersion.startsWith(PROMETHEUS_OPERATOR)
  const library = isOperators ? '@kubernetes-models/prometheus-operator' : 'kubernetes-models'
  const models = (await import(`${library}/${apiVersion}`)) as Record<
    string,
    new (data: object) => { validate(): void }
  >
  const Model = models[kind]
  if (!Model) return [`${apiVersion} has no ${kind}`]
  const faults: string[] = []
  try {
    new Model(object).validate()
  } catch (err) {
    faults.push((err as Error).message)
  }
  if (!isOperators) unknownFields(object, typeNameOf(apiVersion, kind), '', faults)
  return faults
}

/** `apps/v1 Deployment` is V1Deployment. */
function typeNameOf(apiVersion: string, kind: string): string {
  const version = apiVersion.split('/').at(-1)!
  return `${version[0]!.toUpperCase()}${version.slice(1)}${kind}`
}

function unknownFields(value: unknown, type: string, path: string, faults: string[]): void {
  const list = /^Array<(.+)>$/.exec(type)?.[1]
  if (list !== undefined) {
    if (!Array.isArray(value)) faults.push(`${path} is not a list`)
    else for (const [at, item] of value.entries()) unknownFields(item, list, `${path}[${at}]`, faults)
    return
  }
  const map = /^\{ \[key: string\]: (.+); \}$/.exec(type)?.[1]
  if (map !== undefined) {
    for (const [key, item] of Object.entries(value as object))
      unknownFields(item, map, `${path}.${key}`, faults)
    return
  }
  const known = (client as unknown as Record<string, Typed | undefined>)[type]
  if (known === undefined || typeof known.getAttributeTypeMap !== 'function') {
    scalar(value, type, path, faults)
    return
  }
  const attributes = new Map(known.getAttributeTypeMap().map(({ baseName, type }) => [baseName, type]))
  for (const [key, item] of Object.entries(value as object)) {
    const its = attributes.get(key)
    if (its === undefined) faults.push(`${path}.${key} does not exist in ${type}`)
    else unknownFields(item, its, `${path}.${key}`, faults)
  }
}

function scalar(value: unknown, type: string, path: string, faults: string[]): void {
  const wanted = {
    string: ['string'],
    number: ['number'],
    boolean: ['boolean'],
    IntOrString: ['string', 'number'],
  }[type]
  if (wanted && !wanted.includes(typeof value)) faults.push(`${path} is ${typeof value}, not ${type}`)
}
