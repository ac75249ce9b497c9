/** May this connection come in: the policies of a namespace asked about one peer after another. */
import { create, toBinary } from '@bufbuild/protobuf'
import { Mesh } from '../../agent/mesh/mesh.ts'
import { Action, AuthorizationSchema, Scope } from '../../lib/proto/gen/istio/authorization_pb.js'
import type { Part } from './part.ts'

const TYPE = 'type.googleapis.com/istio.security.Authorization'
/** Accounts that a policy names. */
const ACCOUNTS = 8

export const policyParts: readonly Part[] = [1, 10, 100].map(policies)

function policies(count: number): Part {
  return {
    id: `policy-${count}`,
    title: count === 1 ? 'policy evaluation, 1 policy' : `policy evaluation, ${count} policies`,
    about: `Each allows ${ACCOUNTS} accounts to one port; the peers asked about are allowed by the last of them, and every fourth by none.`,
    start: () => {
      const mesh = new Mesh({ nodeName: 'node-a' })
      const kind = mesh.kinds.find(({ typeUrl }) => typeUrl === TYPE)!
      for (let at = 0; at < count; at++) kind.put(`shop/allow-${at}`, policyBytes(at))
      const target = { namespace: 'shop', named: [] }
      const subjects = Array.from({ length: 64 }, (_, at) => ({
        identity: `spiffe://cluster.local/ns/shop/sa/${at % 4 === 3 ? 'stranger' : `client-${count - 1}-${at % ACCOUNTS}`}`,
        sourceIp: `10.98.1.${at + 2}`,
        destinationIp: '10.98.2.2',
        destinationPort: 8080,
      }))
      let allowed = 0
      return {
        work: times => {
          for (let at = 0; at < times; at++)
            if (mesh.policies.evaluate(target, subjects[at % subjects.length]!).isAllowed) allowed++
        },
        stop: () => {
          if (allowed === 0) throw new Error('nobody was allowed')
        },
      }
    },
  }
}

function policyBytes(number: number): Uint8Array {
  const principals = Array.from({ length: ACCOUNTS }, (_, at) => ({
    matchType: { case: 'exact' as const, value: `cluster.local/ns/shop/sa/client-${number}-${at}` },
  }))
  const policy = create(AuthorizationSchema, {
    name: `allow-${number}`,
    namespace: 'shop',
    scope: Scope.NAMESPACE,
    action: Action.ALLOW,
    rules: [{ clauses: [{ matches: [{ principals }] }, { matches: [{ destinationPorts: [8080] }] }] }],
  })
  return toBinary(AuthorizationSchema, policy)
}
