/**
 * From the wire's authorization policy to what the agent keeps. Anything that is not understood refuses the whole
 * policy (`INPUT`): leaving out one match of an ALLOW, or one field of a DENY, would let somebody in.
 */
import { fromBinary } from '@bufbuild/protobuf'
import { Cidr } from '../../lib/address.ts'
import { CulvertError, errorText } from '../../lib/errors.ts'
import {
  Action,
  AuthorizationSchema,
  Scope,
  type Address,
  type Match,
  type StringMatch,
} from '../../lib/proto/gen/istio/authorization_pb.js'
import type { FieldMatch, Policy, PolicyMatch, TextMatch } from './records.ts'

/** Reads an `istio.security.Authorization` that came under `<namespace>/<name>`. Throws `INPUT`. */
export function decodePolicy(resourceName: string, bytes: Uint8Array): Policy {
  const from = parse(bytes)
  const key = `${from.namespace}/${from.name}`
  if (key !== resourceName) throw input(`policy '${key}' is not the resource's name`)
  return {
    key: resourceName,
    namespace: from.namespace,
    scope: scope(from.scope),
    action: action(from.action),
    dryRun: from.dryRun,
    rules: from.rules.map((rule, r) =>
      rule.clauses.map((clause, c) =>
        clause.matches.map((match, m) => {
          try {
            return policyMatch(match)
          } catch (err) {
            throw input(`rules[${r}].clauses[${c}].matches[${m}]: ${errorText(err)}`)
          }
        }),
      ),
    ),
  }
}

function policyMatch(from: Match): PolicyMatch {
  const match: { -readonly [K in keyof PolicyMatch]: PolicyMatch[K] } = {}
  if (from.namespaces.length + from.notNamespaces.length > 0)
    match.namespaces = field(from.namespaces, from.notNamespaces, text)
  if (from.serviceAccounts.length + from.notServiceAccounts.length > 0)
    match.accounts = field(
      from.serviceAccounts,
      from.notServiceAccounts,
      ({ namespace, serviceAccount }) => ({
        namespace,
        serviceAccount,
      }),
    )
  if (from.principals.length + from.notPrincipals.length > 0)
    match.principals = field(from.principals, from.notPrincipals, text)
  if (from.sourceIps.length + from.notSourceIps.length > 0)
    match.sourceIps = field(from.sourceIps, from.notSourceIps, cidr)
  if (from.destinationIps.length + from.notDestinationIps.length > 0)
    match.destinationIps = field(from.destinationIps, from.notDestinationIps, cidr)
  if (from.destinationPorts.length + from.notDestinationPorts.length > 0)
    match.destinationPorts = field(from.destinationPorts, from.notDestinationPorts, port)
  return match
}

function field<From, To>(any: From[], none: From[], convert: (from: From) => To): FieldMatch<To> {
  return { any: any.map(convert), none: none.map(convert) }
}

function text({ matchType }: StringMatch): TextMatch {
  switch (matchType.case) {
    case 'presence':
      return { kind: 'presence' }
    case undefined:
      throw input('a match of text that says neither exact, prefix, suffix nor presence')
    default:
      return { kind: matchType.case, text: matchType.value }
  }
}

function cidr({ address, length }: Address): Cidr {
  return Cidr.fromBytes(address, length)
}

function port(number: number): number {
  if (number > 65535) throw input(`${number} is not a port`)
  return number
}

function scope(from: Scope): Policy['scope'] {
  switch (from) {
    case Scope.GLOBAL:
      return 'global'
    case Scope.NAMESPACE:
      return 'namespace'
    case Scope.WORKLOAD_SELECTOR:
      return 'selector'
    default:
      throw input(`no such scope: ${from as number}`)
  }
}

function action(from: Action): Policy['action'] {
  switch (from) {
    case Action.ALLOW:
      return 'allow'
    case Action.DENY:
      return 'deny'
    default:
      throw input(`no such action: ${from as number}`)
  }
}

function parse(bytes: Uint8Array) {
  try {
    return fromBinary(AuthorizationSchema, bytes)
  } catch (err) {
    throw input(`not an Authorization message: ${errorText(err)}`)
  }
}

function input(message: string): CulvertError {
  return new CulvertError('INPUT', message)
}
