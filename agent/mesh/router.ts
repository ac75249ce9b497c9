/**
 * Answers the data plane's two questions, from what the mesh knows: where does this connection go, and may that
 * one come in. An answer that discovery might better in a moment is held back for that moment, once; after it the
 * pod's own settings say whether the unknown is refused or named.
 *
 * Answers are kept by who asked. `onInvalidate` says when to forget them.
 */
import type { Enrolment } from '../../lib/enrolment.ts'
import type { Logger } from '../../lib/log.ts'
import type { LocalPod } from '../pods/source.ts'
import type {
  AdmitDecision,
  AdmitQuestion,
  Control,
  RouteDecision,
  RouteQuestion,
} from '../worker/messages.ts'
import { decideAdmission, type AdmissionAnswer, type KubeletProof } from './admission.ts'
import { Affinity } from './affinity.ts'
import { Asked } from './asked.ts'
import type { Changes } from './changes.ts'
import { decidesAlike, routedPod, type RoutedPod } from './local-pod.ts'
import type { Mesh } from './mesh.ts'
import { decideOutbound, type OutboundAnswer } from './outbound.ts'
import type { Verdict } from './policies.ts'
import type { Workload } from './records.ts'

const MAX_WARNED_POLICIES = 1000
/** The node's addresses are looked for no more often. */
const OWN_ADDRESSES_MS = 1000
/** How long an answer is waited for while the server is there: being slow is not being away. */
const ANSWER_HOLD_MS = 5000
/** How long one who comes in waits for the server to say who it is. */
const PEER_HOLD_MS = 100

/** Nothing goes out in the clear because of a crowd of questions: the pod's own. */
const TOO_MUCH_ASKED: RouteDecision = {
  kind: 'refuse',
  reason: 'unreachable',
  detail: 'too many connections of the pod wait to hear where they go',
}

export interface RouterOptions {
  readonly mesh: Mesh
  /** The node this agent runs on. */
  readonly nodeName: string
  /**
   * How long a connection waits for discovery to tell of its destination, milliseconds. An update may be in
   * flight even when the stream is quiet. @default 1000
   */
  readonly unknownHoldMs?: number
  /** Tells the kubelet from others of the node. @default everything that calls a probe's port from the node is it */
  readonly isKubelet?: KubeletProof
  /** The node's own addresses, as it sees them itself: bridges have some that the cluster does not know. @default none */
  readonly ownAddresses?: () => readonly string[]
  readonly log: Logger
}

export interface RouterCounters {
  routes: number
  admissions: number
  /** Questions that waited for discovery. */
  held: number
  /** Admissions that a policy named by the workload could not be asked about, because it was not received. */
  missingPolicies: number
  /** Connections that a dry-run policy would have refused. */
  dryRunRefusals: number
}

export class Router implements Control {
  readonly #mesh: Mesh
  readonly #nodeName: string
  readonly #unknownHoldMs: number
  readonly #isKubelet: KubeletProof | undefined
  readonly #readOwnAddresses: () => readonly string[]
  readonly #log: Logger
  readonly #pods = new Map<string, RoutedPod>()
  // Pods that were waited for and that discovery did not tell of in time: not waited for again.
  readonly #unheardOf = new Set<string>()
  // What discovery said of each pod when it was last looked at.
  readonly #workloads = new Map<string, Workload>()
  readonly #asked = new Asked()
  readonly #affinity = new Affinity()
  readonly #listeners: ((podUid?: string) => void)[] = []
  readonly #warnedPolicies = new Set<string>()
  #ownAddresses: ReadonlySet<string> = new Set()
  #ownAddressesAtMs = -Infinity
  readonly #staleUids = new Set<string>()
  #isAllStale = false
  #isFlushScheduled = false

  readonly counters: RouterCounters = {
    routes: 0,
    admissions: 0,
    held: 0,
    missingPolicies: 0,
    dryRunRefusals: 0,
  }

  constructor(options: RouterOptions) {
    this.#mesh = options.mesh
    this.#nodeName = options.nodeName
    this.#unknownHoldMs = options.unknownHoldMs ?? 1000
    this.#isKubelet = options.isKubelet
    this.#readOwnAddresses = options.ownAddresses ?? (() => [])
    this.#log = options.log
    this.#mesh.onChange(changes => this.#onChange(changes))
  }

  /** Registers a pod of this node, or its new settings. Questions about pods that are not registered are refused. */
  setLocalPod(pod: LocalPod, enrolment: Enrolment): void {
    const before = this.#pods.get(pod.uid)
    const after = routedPod(pod, enrolment)
    this.#pods.set(pod.uid, after)
    this.#lookAt(pod.uid, pod)
    if (!before || !decidesAlike(before, after)) this.#invalidate(pod.uid)
  }

  removeLocalPod(uid: string): void {
    this.#unheardOf.delete(uid)
    this.#workloads.delete(uid)
    this.#affinity.forget(uid)
    if (this.#pods.delete(uid)) this.#invalidate(uid)
  }

  /**
   * Told when answers given before may no longer hold: those about one pod, or all. Comes after every answer
   * that was made from the older state.
   */
  onInvalidate(listener: (podUid?: string) => void): void {
    this.#listeners.push(listener)
  }

  /**
   * Where a captured connection goes. Waits up to `unknownHoldMs` for an address that should be known, and longer
   * for an answer that is certain to come.
   */
  async route(question: RouteQuestion): Promise<RouteDecision> {
    this.counters.routes++
    const { podUid, ip, port } = question
    let hasRoom = true
    const decide = () => {
      // What there is to be asked for may depend on what has been answered.
      hasRoom = this.#mesh.ask(podUid, ip, port)
      return this.#decideOutbound(podUid, ip, port)
    }
    let answer = decide()
    if (answer.isUncertain && hasRoom) {
      const held = await this.#hold(question, answer, decide)
      answer = held.answer
      hasRoom &&= held.hasRoom
    }
    this.#asked.add(ip)
    const { decision, service } = answer
    if (service !== undefined) this.#asked.add(service)
    if (!hasRoom) {
      this.#invalidate(podUid) // nobody will say when it does not hold any more
      if (answer.isUncertain && this.#mesh.canAsk) return TOO_MUCH_ASKED
    }
    if (service === undefined || decision.kind !== 'forward' || !answer.hasAffinity) return decision
    const endpoints = this.#affinity.inOrder(podUid, service, decision.endpoints)
    return { ...decision, endpoints, inOrder: true }
  }

  /** Whether an inbound connection may come in. Waits up to `unknownHoldMs`, once a pod, for the pod's workload. */
  async admit(question: AdmitQuestion): Promise<AdmitDecision> {
    this.counters.admissions++
    const { podUid, sourceIp } = question
    if (!this.#ownAddresses.has(sourceIp)) await this.#meet(sourceIp, podUid)
    if (question.identity === undefined && !this.#mesh.workloads.byIp(sourceIp)) this.#lookForOwnAddresses()
    const decide = () => this.#decideAdmission(question)
    let answer = decide()
    if (answer.isUncertain && !this.#unheardOf.has(podUid)) {
      ;({ answer } = await this.#hold({ podUid, ip: question.ip }, answer, decide))
      if (answer.isUncertain) this.#giveUpOn(podUid)
    }
    this.#asked.add(sourceIp)
    if (answer.verdict) this.#report(question, answer.verdict)
    return answer.decision
  }

  /** Asks who the peer is, if that is to be asked. It decides nothing but under which word: worth a moment. */
  async #meet(ip: string, podUid: string): Promise<void> {
    if (!this.#mesh.ask(`${podUid} inbound`, ip)) return
    const deadline = performance.now() + PEER_HOLD_MS
    while (this.#mesh.isAnswering(ip)) {
      const left = deadline - performance.now()
      if (left <= 0 || !(await this.#mesh.changed(podUid, left, ip))) return
    }
  }

  /**
   * Waits for what may better the answer, as long as that is worth it and there is room to wait, and gives the last
   * one.
   */
  async #hold<A extends { readonly isUncertain: boolean }>(
    { podUid, ip, port }: { podUid: string; ip: string; port?: number },
    first: A,
    decide: () => A,
  ): Promise<{ answer: A; hasRoom: boolean }> {
    this.counters.held++
    const startMs = performance.now()
    let answer = first
    while (answer.isUncertain) {
      const forMs = this.#mesh.isAnswering(ip, port) ? ANSWER_HOLD_MS : 0
      const left = startMs + Math.max(forMs, this.#unknownHoldMs) - performance.now()
      if (left <= 0) break
      if (!(await this.#mesh.changed(podUid, left, ip, port))) return { answer, hasRoom: false }
      answer = decide()
    }
    return { answer, hasRoom: true }
  }

  #decideOutbound(podUid: string, ip: string, port: number): OutboundAnswer {
    const from = this.#pods.get(podUid)
    if (from) return decideOutbound(this.#mesh, from, ip, port)
    const detail = `pod ${podUid} is not known to the agent`
    return { decision: { kind: 'refuse', reason: 'unreachable', detail }, isUncertain: false }
  }

  #decideAdmission(question: AdmitQuestion): AdmissionAnswer {
    const to = this.#pods.get(question.podUid)
    if (to) {
      const context = {
        mesh: this.#mesh,
        nodeName: this.#nodeName,
        ownAddresses: this.#ownAddresses,
        isKubelet: this.#isKubelet,
      }
      return decideAdmission(context, to, question)
    }
    const detail = `pod ${question.podUid} is not known to the agent`
    const peer = question.identity === undefined ? {} : { identity: question.identity }
    return { decision: { kind: 'refuse', reason: 'unreachable', detail, peer }, isUncertain: false }
  }

  /** A node gets addresses as it goes on: a bridge with its first pod. */
  #lookForOwnAddresses(): void {
    const nowMs = performance.now()
    if (nowMs - this.#ownAddressesAtMs < OWN_ADDRESSES_MS) return
    this.#ownAddressesAtMs = nowMs
    const now = this.#readOwnAddresses()
    if (now.length === this.#ownAddresses.size && now.every(ip => this.#ownAddresses.has(ip))) return
    this.#ownAddresses = new Set(now)
    this.#invalidate()
  }

  #giveUpOn(podUid: string): void {
    const to = this.#pods.get(podUid)
    if (!to) return
    this.#unheardOf.add(podUid)
    const { namespace, name } = to.pod
    if (this.#mesh.hasPolicies)
      this.#log.warn(
        { namespace, pod: name },
        'discovery does not know the pod: policies that select it are not enforced',
      )
    else
      this.#log.warn({ namespace, pod: name }, 'policies have not been received: what needs them is refused')
  }

  #report(question: AdmitQuestion, verdict: Verdict): void {
    for (const policy of verdict.missing) {
      this.counters.missingPolicies++
      if (this.#warnedPolicies.has(policy) || this.#warnedPolicies.size >= MAX_WARNED_POLICIES) continue
      this.#warnedPolicies.add(policy)
      this.#log.warn(
        { policy, pod: question.podUid },
        'policy named by the workload has not been received: not enforced',
      )
    }
    for (const policy of verdict.dryRun) {
      this.counters.dryRunRefusals++
      const { podUid, sourceIp, identity, port } = question
      this.#log.info({ policy, pod: podUid, sourceIp, identity, port }, 'dry-run policy would have refused')
    }
  }

  #onChange(changes: Changes): void {
    if (this.#asked.isTouchedBy(changes)) {
      this.#asked.clear()
      this.#invalidate()
    }
    for (const [uid, { pod }] of this.#pods) this.#lookAt(uid, pod)
  }

  /** Answers about a pod depend on what discovery says of it: locality, probe ports, policies that select it. */
  #lookAt(uid: string, pod: LocalPod): void {
    const workload = this.#mesh.workloadOf(pod)
    if (workload) this.#unheardOf.delete(uid)
    if (this.#workloads.get(uid) === workload) return
    if (workload) this.#workloads.set(uid, workload)
    else this.#workloads.delete(uid)
    this.#invalidate(uid)
  }

  #invalidate(podUid?: string): void {
    if (podUid === undefined) this.#isAllStale = true
    else this.#staleUids.add(podUid)
    if (this.#isFlushScheduled) return
    this.#isFlushScheduled = true
    // A turn later: answers made from the older state have left by then.
    setImmediate(() => {
      const uids = this.#isAllStale ? [undefined] : [...this.#staleUids]
      this.#isAllStale = false
      this.#staleUids.clear()
      this.#isFlushScheduled = false
      for (const uid of uids) for (const listener of this.#listeners) listener(uid)
    })
  }
}
