/**
 * The pods of a node with everything that belongs to them, real from the rules to the data-plane thread. Only what comes
 * from elsewhere is the test's: what discovery says, whether the certificate service answers, and who hears the reports.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import type { CertificateSource } from '../../agent/identity/ca-client.ts'
import { verifyChain } from '../../agent/identity/chain.ts'
import { createKeyAndRequest } from '../../agent/identity/csr.ts'
import { CertificateManager } from '../../agent/identity/manager.ts'
import { PodState } from '../../agent/identity/report-client.ts'
import { Router } from '../../agent/mesh/router.ts'
import { DEFAULT_SESSION } from '../../agent/hbone/limits.ts'
import { RedirectGuard } from '../../agent/pods/guard.ts'
import { ListenerKeeper } from '../../agent/pods/listeners.ts'
import type { PodLife } from '../../agent/pods/pod-life.ts'
import { Pods } from '../../agent/pods/pods.ts'
import type { LocalPod } from '../../agent/pods/source.ts'
import { DEFAULT_PROXY } from '../../agent/proxy/pod-context.ts'
import { DataPlaneThreads } from '../../agent/worker/threads.ts'
import { localPod, MeshWorld, type PodShape } from './mesh-world.ts'
import type { TestPod } from './pods.ts'
import { quietLog, type Line } from './quiet-log.ts'
import { createRoot, issueLeaf } from './test-pki.ts'
import { becomes } from './becomes.ts'

export interface NodePods {
  readonly world: MeshWorld
  readonly pods: Pods
  readonly keeper: ListenerKeeper
  readonly threads: DataPlaneThreads
  readonly runDir: string
  /** What was last reported of each pod, by uid. */
  readonly reported: ReadonlyMap<string, { readonly state: string; readonly detail: string }>
  readonly lines: readonly Line[]
  /** Lines of the access log. */
  readonly carried: readonly string[]
  /** While it is pending nobody is given a certificate. */
  gate: Promise<void>
  /** A pod in one of the test's namespaces; its service account is for discovery to tell. */
  pod(of: TestPod, more?: Partial<LocalPod>): LocalPod
  /** Discovery tells of the pod: by default enrolled, with the service account that is its name. */
  tell(pod: LocalPod, shape?: Partial<PodShape>): void
  /** Resolves when the pod's state is this one. */
  state(uid: string, state: string, detail?: RegExp): Promise<void>
}

const root = await createRoot('mesh')

export async function nodePods(
  t: Test,
  { unnamedAfterMs, certificateWaitMs }: { unnamedAfterMs?: number; certificateWaitMs?: number } = {},
): Promise<NodePods> {
  const { log, lines } = quietLog()
  const world = new MeshWorld()
  const router = new Router({ mesh: world.mesh, nodeName: 'node-a', log })
  const carried: string[] = []
  const threads = new DataPlaneThreads(
    router,
    {
      traffic: () => undefined,
      refusals: () => undefined,
      accessLog: writes => carried.push(...writes.flatMap(write => write.trim().split('\n'))),
      counters: () => undefined,
      died: error => t.fail(error.message),
    },
    log,
  )
  await threads.start(1, {
    proxy: {
      ...DEFAULT_PROXY,
      ...(certificateWaitMs !== undefined && { certificateWaitMs }),
      session: DEFAULT_SESSION,
      clusterId: 'Kubernetes',
    },
    accessLog: { level: 'info', fields: {} },
  })
  const runDir = mkdtempSync(join(tmpdir(), 'culvert-pods-'))
  const keeper = new ListenerKeeper({ runDir, log })
  const guard = new RedirectGuard({ log, onDrift: () => undefined })
  const source: CertificateSource = {
    async issue({ identity, bundle }) {
      await node.gate
      const { key, publicKey } = await createKeyAndRequest(identity)
      const leaf = await issueLeaf(root, new Uint8Array(publicKey), { identity })
      const nowMs = Date.now()
      return { key, ...verifyChain({ answer: [leaf, root.pem], identity, publicKey, bundle, nowMs }) }
    },
  }
  const certificates = new CertificateManager({ source, log })
  certificates.onCertificate((podUid, certificate) =>
    threads.tell({ type: 'certificate', podUid, certificate }),
  )
  router.onInvalidate(podUid => threads.tell({ type: 'invalidate', podUid }))
  const reported = new Map<string, { state: string; detail: string }>()
  const reports = {
    set: ({ uid }: { uid: string }, state: PodState, detail = '') =>
      void reported.set(uid, { state: PodState[state], detail }),
    remove: (uid: string) => void reported.delete(uid),
  }
  const { mesh } = world
  const pods = new Pods(
    {
      threads,
      keeper,
      certificates,
      router,
      reports,
      guard,
      log,
      trustDomain: 'cluster.local',
      enrolmentOf: pod => mesh.enrolmentOf(pod),
      serviceAccountOf: pod => mesh.serviceAccountOf(pod),
      isTerminating: pod => mesh.isTerminating(pod),
      ...(unnamedAfterMs !== undefined && { unnamedAfterMs }),
    },
    () => undefined,
  )
  mesh.onEnrolmentChange(namespaces => pods.reconsider(namespaces))
  t.teardown(async () => {
    certificates.close()
    guard.close()
    await pods.synced(new Set())
    await keeper.close()
    await threads.stop()
    rmSync(runDir, { recursive: true })
  })
  const node: NodePods = {
    world,
    pods,
    keeper,
    threads,
    runDir,
    reported,
    lines,
    carried,
    gate: Promise.resolve(),
    pod: ({ name, netns, ip, ip6 }, more = {}) =>
      localPod(name, [ip, ip6], { netns: `/run/netns/${netns}`, serviceAccount: undefined, ...more }),
    tell: ({ uid, name, namespace, ips }, shape = {}) => {
      world.pod({
        name,
        namespace,
        ips: [...ips],
        ...shape,
        info: shape.info ?? { podUid: uid, enrolment: { mesh: true } },
        more: { node: 'node-a', ...shape.more },
      })
    },
    state: async (uid, state, detail) => {
      const is = (life: PodLife | undefined) =>
        life?.status.state === state && (detail?.test(life.status.detail) ?? true)
      await becomes(() => is(pods.get(uid)))
    },
  }
  return node
}
