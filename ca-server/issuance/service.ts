/** `CreateCertificate`: from a call to a certificate, or to a refusal with its reason in the log. */
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from '@connectrpc/connect'
import { create } from '@bufbuild/protobuf'
import type { JsonObject } from '@bufbuild/protobuf'
import { CulvertError } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import {
  IstioCertificateResponseSchema,
  type IstioCertificateRequest,
  type IstioCertificateResponse,
  type IstioCertificateService,
} from '../../lib/proto/gen/istio/ca_pb.js'
import type { Authority } from '../authority/authority.ts'
import type { IssuedCertificate } from '../authority/leaf.ts'
import { callerOf, nodeOf, type Calls } from '../calls.ts'
import type { Metrics } from '../metrics.ts'
import { Refusal } from '../refusal.ts'
import { objectKey, type World } from '../world/world.ts'
import { verifyCsr } from './csr.ts'
import type { RateLimit } from './rate-limit.ts'
import { decide, type Question, type Verdict } from './rules.ts'

export interface IssuanceOptions {
  readonly authority: Authority
  readonly world: World
  readonly trustDomain: string
  /** Lifetime when the caller names none. */
  readonly defaultTtlMs: number
  readonly maxTtlMs: number
  readonly rateLimit: RateLimit
  readonly calls: Calls
  readonly metrics: Metrics
  readonly log: Logger
}

// An agent is told of a new pod by its runtime, often before the source of objects tells us.
const WAIT_FOR_POD_MS = 1500
const MAX_WAITING = 1000

type Granted = Extract<Verdict, { allowed: true }>

export function certificateService(options: IssuanceOptions): ServiceImpl<typeof IstioCertificateService> {
  const { calls, metrics } = options
  const issuance = new Issuance(options)
  return {
    async createCertificate(request, context) {
      const stopTimer = metrics.issuanceSeconds.startTimer()
      metrics.requests.inc()
      try {
        const response = await issuance.issue(request, context)
        stopTimer()
        return response
      } catch (err) {
        if (err instanceof Refusal && err.reason.startsWith('csr-')) metrics.csrFaults.inc()
        if (err instanceof CulvertError && err.code === 'PKI') metrics.signingFaults.inc()
        throw calls.refused(err, context, askedFor(request))
      }
    },
  }
}

class Issuance {
  readonly #options: IssuanceOptions
  #waiting = 0

  constructor(options: IssuanceOptions) {
    this.#options = options
  }

  async issue(request: IstioCertificateRequest, context: HandlerContext): Promise<IstioCertificateResponse> {
    const { authority, world, rateLimit, metrics, log } = this.#options
    const caller = callerOf(context)
    const node = nodeOf(caller)
    if (!rateLimit.take(node)) {
      metrics.rateLimited.inc()
      log.debug({ node }, 'certificate request above the rate')
      throw new ConnectError('too many certificate requests from this node', Code.ResourceExhausted)
    }
    if (!world.isSynced) throw new ConnectError('the cluster is not known yet', Code.Unavailable)
    const { publicKey, uri } = await verifyCsr(request.csr, authority.engine)
    const question: Question = {
      caller,
      csrUri: uri,
      impersonated: metadataText(request.metadata, 'ImpersonatedIdentity'),
      podUid: metadataText(request.metadata, 'PodUID'),
    }
    const granted = await this.#decide(question, context.signal)
    const issued = await authority.issue(granted.identity, { publicKey, ttlMs: this.#ttlMs(request) })
    metrics.issued.inc()
    this.#record(granted, issued, caller.podName)
    return create(IstioCertificateResponseSchema, { certChain: [...issued.chain] })
  }

  async #decide(question: Question, signal: AbortSignal): Promise<Granted> {
    const { world, trustDomain } = this.#options
    let verdict = decide(world, trustDomain, question, Date.now())
    const mayCome = !verdict.allowed && verdict.reason === 'pod-unknown' && question.podUid !== undefined
    if (mayCome && this.#waiting < MAX_WAITING) {
      this.#waiting++
      await world.whenPod(question.podUid, WAIT_FOR_POD_MS, signal)
      this.#waiting--
      verdict = decide(world, trustDomain, question, Date.now())
    }
    if (!verdict.allowed) throw new Refusal(verdict.reason, verdict.detail)
    return verdict
  }

  #ttlMs({ validityDuration }: IstioCertificateRequest): number {
    const { defaultTtlMs, maxTtlMs } = this.#options
    return Math.min(validityDuration > 0n ? Number(validityDuration) * 1000 : defaultTtlMs, maxTtlMs)
  }

  /** The line by which every certificate can be accounted for. Never the key, never the token. */
  #record({ identity, node, pod }: Granted, issued: IssuedCertificate, callerPod: string): void {
    this.#options.log.info(
      {
        identity,
        pod: objectKey(pod.metadata),
        pod_uid: pod.metadata.uid,
        node,
        caller: callerPod,
        serial: issued.serial,
        not_before: issued.notBefore.toISOString(),
        not_after: issued.notAfter.toISOString(),
        fingerprint_sha256: issued.fingerprint,
      },
      'certificate issued',
    )
  }
}

/** A text of the request's metadata; undefined when absent or empty. Throws `Refusal` when it is no text. */
function metadataText(metadata: JsonObject | undefined, field: string): string | undefined {
  const value = metadata?.[field]
  if (value === undefined || value === null || value === '') return undefined
  if (typeof value !== 'string' || value.length > 512)
    throw new Refusal('metadata', `the request's metadata field ${field} is not a short text`)
  return value
}

/** For the log: what a refused request was about, cut to a length that a stranger cannot abuse. */
function askedFor({ metadata }: IstioCertificateRequest): Record<string, unknown> {
  const text = (field: string): string | undefined => {
    const value = metadata?.[field]
    return typeof value === 'string' ? value.slice(0, 300) : undefined
  }
  return { identity: text('ImpersonatedIdentity'), pod_uid: text('PodUID') }
}
