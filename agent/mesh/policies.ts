/**
 * Authorization policies and their evaluation: ALLOW and DENY on layer 4, at the destination.
 *
 * A policy concerns a workload when its scope is global, when its scope is the workload's namespace, or when the
 * workload names it. Any DENY that matches refuses; else, if there is any ALLOW, one of them must match.
 * Dry-run policies are only reported.
 */
import { parseSpiffe } from '../../lib/spiffe.ts'
import type { ChangeLog } from './changes.ts'
import type { FieldMatch, Policy, PolicyMatch, TextMatch } from './records.ts'

/** A connection as policies see it. */
export interface PolicySubject {
  /** Verified SPIFFE ID; undefined for plaintext. */
  readonly identity: string | undefined
  readonly sourceIp: string
  readonly destinationIp: string
  readonly destinationPort: number
}

/** Whom a connection goes to. */
export interface PolicyTarget {
  readonly namespace: string
  /** `<namespace>/<name>` of the policies that select the workload. */
  readonly named: readonly string[]
}

export interface Verdict {
  readonly isAllowed: boolean
  /** Why not, for people; empty when allowed. */
  readonly detail: string
  /** Dry-run policies that would have said otherwise. */
  readonly dryRun: readonly string[]
  /** Policies that the workload names and that have not been received. */
  readonly missing: readonly string[]
}

const NONE: readonly string[] = []

export class Policies {
  readonly #changes: ChangeLog
  readonly #byKey = new Map<string, Policy>()
  readonly #byNamespace = new Map<string, Policy[]>()
  #global: Policy[] = []

  constructor(changes: ChangeLog) {
    this.#changes = changes
  }

  get size(): number {
    return this.#byKey.size
  }

  values(): MapIterator<Policy> {
    return this.#byKey.values()
  }

  put(policy: Policy): void {
    this.#drop(policy.key)
    this.#byKey.set(policy.key, policy)
    if (policy.scope === 'global') this.#global.push(policy)
    if (policy.scope === 'namespace') {
      const policies = this.#byNamespace.get(policy.namespace)
      if (policies) policies.push(policy)
      else this.#byNamespace.set(policy.namespace, [policy])
    }
    this.#changes.broad()
  }

  remove(key: string): void {
    if (this.#drop(key)) this.#changes.broad()
  }

  /** Decides whether the connection may come in. */
  evaluate(target: PolicyTarget, subject: PolicySubject): Verdict {
    const missing = target.named.filter(key => !this.#byKey.has(key))
    let isDenied: Policy | undefined
    let isAllowed = false
    let hasAllow = false
    let dryDeny: Policy[] | undefined
    let dryAllow: Policy[] | undefined
    let isDryAllowed = false
    for (const policy of this.#concerning(target)) {
      if (policy.action === 'allow' && !policy.dryRun) hasAllow = true
      // What is settled need not be looked at; dry-run policies are always wanted.
      if (!policy.dryRun && (policy.action === 'allow' ? isAllowed : isDenied !== undefined)) continue
      const isMatch = matches(policy, subject)
      if (policy.dryRun) {
        if (policy.action === 'deny' && isMatch) (dryDeny ??= []).push(policy)
        if (policy.action === 'allow') {
          isDryAllowed ||= isMatch
          ;(dryAllow ??= []).push(policy)
        }
      } else if (isMatch) {
        if (policy.action === 'deny') isDenied = policy
        else isAllowed = true
      }
    }
    const isOpen = isDenied === undefined && (isAllowed || !hasAllow)
    let dryRun = NONE
    if (isOpen && dryDeny) dryRun = dryDeny.map(policy => policy.key)
    else if (isOpen && !hasAllow && dryAllow && !isDryAllowed) dryRun = dryAllow.map(policy => policy.key)
    if (isDenied) return { isAllowed: false, detail: `denied by policy ${isDenied.key}`, dryRun, missing }
    if (!isOpen) return { isAllowed: false, detail: 'no ALLOW policy matches', dryRun, missing }
    return { isAllowed: true, detail: '', dryRun, missing }
  }

  *#concerning(target: PolicyTarget): Generator<Policy> {
    yield* this.#global
    yield* this.#byNamespace.get(target.namespace) ?? []
    for (const key of target.named) {
      const policy = this.#byKey.get(key)
      // One of another scope has come by already, or is none of this workload's business.
      if (policy?.scope === 'selector') yield policy
      else if (policy?.scope === 'namespace' && policy.namespace !== target.namespace) yield policy
    }
  }

  #drop(key: string): boolean {
    const policy = this.#byKey.get(key)
    if (!policy) return false
    this.#byKey.delete(key)
    if (policy.scope === 'global') this.#global = this.#global.filter(each => each !== policy)
    const left = this.#byNamespace.get(policy.namespace)?.filter(each => each !== policy)
    if (left?.length === 0) this.#byNamespace.delete(policy.namespace)
    else if (left) this.#byNamespace.set(policy.namespace, left)
    return true
  }
}

/** Reports whether some rule of the policy matches the connection. A policy without rules never does. */
export function matches(policy: Policy, subject: PolicySubject): boolean {
  return policy.rules.some(clauses =>
    clauses.every(
      alternatives => alternatives.length === 0 || alternatives.some(match => matchesAll(match, subject)),
    ),
  )
}

function matchesAll(match: PolicyMatch, subject: PolicySubject): boolean {
  const { identity, sourceIp, destinationIp, destinationPort } = subject
  const id = identity === undefined ? undefined : parseSpiffe(identity)
  let hasField = false
  const holds = <T>(field: FieldMatch<T> | undefined, test: (value: T) => boolean): boolean => {
    if (field === undefined) return true
    hasField = true
    return (field.any.length === 0 || field.any.some(test)) && !field.none.some(test)
  }
  return (
    holds(match.destinationPorts, port => port === destinationPort) &&
    holds(match.destinationIps, range => range.contains(destinationIp)) &&
    holds(match.sourceIps, range => range.contains(sourceIp)) &&
    holds(match.namespaces, wanted => id !== undefined && matchesText(wanted, id.namespace)) &&
    holds(
      match.accounts,
      wanted => wanted.namespace === id?.namespace && wanted.serviceAccount === id.serviceAccount,
    ) &&
    // Principals are written without the scheme.
    holds(
      match.principals,
      wanted => id !== undefined && matchesText(wanted, identity!.slice('spiffe://'.length)),
    ) &&
    hasField
  )
}

function matchesText(wanted: TextMatch, text: string): boolean {
  switch (wanted.kind) {
    case 'exact':
      return text === wanted.text
    case 'prefix':
      return text.startsWith(wanted.text)
    case 'suffix':
      return text.endsWith(wanted.text)
    default:
      return text !== ''
  }
}
