/** Certificates: what the ca-server does for one, with each of its engines, and what the agent does for its request. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createKeyAndRequest } from '../../agent/identity/csr.ts'
import { Authority } from '../../ca-server/authority/authority.ts'
import { ENGINE_NAMES, type EngineName } from '../../ca-server/authority/engine-name.ts'
import { verifyCsr } from '../../ca-server/issuance/csr.ts'
import { decide, type Question } from '../../ca-server/issuance/rules.ts'
import { World } from '../../ca-server/world/world.ts'
import { createLogger } from '../../lib/log.ts'
import { clusterOf, NODE } from './cluster.ts'
import type { Part } from './part.ts'

const TRUST_DOMAIN = 'cluster.local'
const DAY_MS = 86_400_000
/** Pods that the rules are asked in: as many as a cluster of some size has. */
const PODS = 1000

export const certificateParts: readonly Part[] = [
  {
    id: 'key-and-request',
    title: 'key and certificate request',
    about: 'The agent makes a P-256 key and a signed PKCS #10 request for it.',
    start: () => ({
      work: async times => {
        for (let at = 0; at < times; at++)
          await createKeyAndRequest(`spiffe://${TRUST_DOMAIN}/ns/ns-0/sa/app-0`)
      },
    }),
  },
  ...ENGINE_NAMES.map(issue),
]

function issue(engine: EngineName): Part {
  return {
    id: `issue-${engine}`,
    title: `certificate issue, ${engine} engine`,
    about: `The ca-server verifies a request, decides among ${PODS} pods, and signs, by the ${engine} WebCrypto.`,
    start: async () => {
      const directory = await mkdtemp(join(tmpdir(), 'culvert-bench-ca-'))
      const authority = await Authority.open({
        trustDomain: TRUST_DOMAIN,
        source: { kind: 'own-root', directory },
        engine,
        log: createLogger({}, 'silent'),
      })
      const world = new World()
      world.replaceAll(clusterOf(PODS))
      const pod = [...world.podsOnNode(NODE)][0]!
      const identity = `spiffe://${TRUST_DOMAIN}/ns/${pod.metadata.namespace}/sa/${pod.spec.serviceAccountName}`
      const { csr } = await createKeyAndRequest(identity)
      const caller = {
        node: NODE,
        podName: 'culvert-agent',
        podUid: 'uid-agent',
        namespace: 'culvert-system',
        serviceAccount: 'culvert-agent',
        audience: 'culvert-ca',
      }
      return {
        work: async times => {
          for (let at = 0; at < times; at++) {
            const { publicKey, uri } = await verifyCsr(csr, authority.engine)
            const question: Question = {
              caller,
              csrUri: uri,
              impersonated: identity,
              podUid: pod.metadata.uid,
            }
            const verdict = decide(world, TRUST_DOMAIN, question, Date.now())
            if (!verdict.allowed) throw new Error(`refused: ${verdict.detail}`)
            await authority.issue(verdict.identity, { publicKey, ttlMs: DAY_MS })
          }
        },
        stop: () => rm(directory, { recursive: true, force: true }),
      }
    },
  }
}
