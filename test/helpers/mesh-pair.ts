/**
 * A client pod and a server pod in the mesh, each with a data plane of its own in this process, and answers to its
 * questions given by the test: everything of the data path is real, nothing of the control plane is there.
 */
import { execFileSync } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import type { Test } from 'tap'
import { DEFAULT_SESSION } from '../../agent/hbone/limits.ts'
import type { Connection } from '../../agent/proxy/connection.ts'
import { DEFAULT_PROXY } from '../../agent/proxy/pod-context.ts'
import { inNetns } from '../../agent/sys/netns.ts'
import { listenTcp } from '../../agent/sys/socket.ts'
import { DataPlane } from '../../agent/worker/data-plane.ts'
import type {
  AdmitDecision,
  AdmitQuestion,
  ConnectionRecord,
  FromWorker,
  PodCertificate,
  RouteDecision,
  RouteQuestion,
} from '../../agent/worker/messages.ts'
import { MARK, PORT } from '../../agent/ports.ts'
import { makePods, type TestPod } from './pods.ts'
import { createRoot, issueLeaf, type Authority } from './test-pki.ts'

export interface MeshPod extends TestPod {
  readonly identity: string
  readonly plane: DataPlane
  readonly closed: ConnectionRecord[]
  readonly logs: Extract<FromWorker, { type: 'log' }>[]
  /** Resolves with the first closed record that fits, past or future. */
  record(fits: (record: ConnectionRecord) => boolean): Promise<ConnectionRecord>
  route: (question: RouteQuestion) => RouteDecision | Promise<RouteDecision>
  admit: (question: AdmitQuestion) => AdmitDecision | Promise<AdmitDecision>
}

export interface MeshPair {
  readonly root: Authority
  readonly client: MeshPod
  readonly server: MeshPod
  /** A pod outside the mesh. */
  readonly old: TestPod
}

export async function meshPair(t: Test): Promise<MeshPair> {
  const root = await createRoot('mesh')
  const [client, server, old] = makePods(t, ['client', 'server', 'old']) as [TestPod, TestPod, TestPod]
  const server_ = await join(t, server, 'server', root)
  const client_ = await join(t, client, 'client', root)
  client_.route = ({ ip, port }) => tunnelTo(server_, ip, port)
  return { root, client: client_, server: server_, old }
}

export function tunnelTo(server: MeshPod, ip: string, port: number): RouteDecision {
  const via = { kind: 'hbone', port: PORT.hbone, identities: [server.identity] } as const
  return { kind: 'forward', endpoints: [{ ip, port, weight: 1, peer: { workload: server.name }, via }] }
}

export async function certificateFor(root: Authority, identity: string): Promise<PodCertificate> {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = Uint8Array.from(publicKey.export({ type: 'spki', format: 'der' }))
  const chain = await issueLeaf(root, spki, { identity })
  const key = privateKey.export({ type: 'pkcs8', format: 'pem' })
  return { key, chain, roots: root.pem, notAfterMs: Date.now() + 86_400_000 }
}

async function join(t: Test, pod: TestPod, account: string, root: Authority): Promise<MeshPod> {
  const identity = `spiffe://cluster.local/ns/shop/sa/${account}`
  const closed: ConnectionRecord[] = []
  const logs: Extract<FromWorker, { type: 'log' }>[] = []
  const watchers = new Set<(record: ConnectionRecord) => void>()
  const options = { ...DEFAULT_PROXY, session: DEFAULT_SESSION, clusterId: 'Kubernetes' }
  const events = {
    opened: () => undefined,
    closed: (connection: Connection) => {
      const record = connection.record()
      closed.push(record)
      for (const watch of watchers) watch(record)
    },
  }
  const answer = (message: FromWorker) => {
    if (message.type === 'log') logs.push(message)
    if (message.type === 'route')
      void Promise.resolve(mesh.route(message.question)).then(decision =>
        plane.handle({ type: 'route-answer', id: message.id, decision }),
      )
    if (message.type === 'admit')
      void Promise.resolve(mesh.admit(message.question)).then(decision =>
        plane.handle({ type: 'admit-answer', id: message.id, decision }),
      )
  }
  const plane = new DataPlane(options, answer, events)
  const mesh: MeshPod = {
    ...pod,
    identity,
    plane,
    closed,
    logs,
    record: fits =>
      new Promise(resolve => {
        const found = closed.find(fits)
        if (found) return resolve(found)
        const watch = (record: ConnectionRecord) => {
          if (!fits(record)) return
          watchers.delete(watch)
          resolve(record)
        }
        watchers.add(watch)
      }),
    route: () => ({ kind: 'refuse', reason: 'unreachable', detail: 'no route in this test' }),
    admit: ({ identity: peer }) => ({ kind: 'admit', reason: peer ? 'mtls' : 'peer-not-enrolled', peer: {} }),
  }
  const uid = `uid-${pod.name}`
  const open = (port: number) => inNetns(pod.fd, () => listenTcp({ port, mark: MARK, reusePort: true }))
  const facts = { uid, namespace: 'shop', name: pod.name, serviceAccount: account, identity }
  plane.handle({ type: 'pod', pod: { ...facts, ips: [pod.ip, pod.ip6], netnsFd: pod.fd } })
  plane.handle({ type: 'certificate', podUid: uid, certificate: await certificateFor(root, identity) })
  const listeners = { outbound: open(PORT.outbound), inbound: open(PORT.inbound), hbone: open(PORT.hbone) }
  plane.handle({ type: 'listen', podUid: uid, listeners })
  t.teardown(() => plane.handle({ type: 'drain', drain: { deadlineMs: 0 } }))
  capture(pod)
  return mesh
}

/** The least that brings connections to the agent and replies back; the agent's own rules have tests of their own. */
export function capture(pod: TestPod): void {
  for (const [family, restore, loopback] of [
    ['-4', 'iptables-restore', '127.0.0.1/32'],
    ['-6', 'ip6tables-restore', '::1/128'],
  ] as const) {
    const rules = `*raw
-A OUTPUT -o lo -p tcp -m mark --mark 0x539/0xfff -j CT --zone-orig 1337
COMMIT
*mangle
-A PREROUTING -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff
-A OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
COMMIT
*nat
-A PREROUTING -p tcp --syn ! -d ${loopback} ! --dport 15008 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15006
-A OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT
-A OUTPUT ! -d ${loopback} -o lo -j ACCEPT
-A OUTPUT -p tcp --syn ! -d ${loopback} -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001
COMMIT
`
    execFileSync('ip', ['netns', 'exec', pod.netns, restore, '--noflush', '-w', '5'], { input: rules })
    const batch = `rule add fwmark 0x111/0xfff pref 32764 lookup 100\nroute add local default dev lo table 100\n`
    execFileSync('ip', [family, '-n', pod.netns, '-batch', '-'], { input: batch })
  }
}
