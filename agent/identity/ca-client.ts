/**
 * Asks the certificate service for one certificate: a new key, one call, one checked answer. Speaks Istio's
 * `CreateCertificate`, so that an istiod can be asked as well; `PodUID` beside the identity is Culvert's own. Nothing is
 * retried here. Tokens and keys pass through and are never part of an error.
 */
import type { X509Certificate } from 'node:crypto'
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import { systemClock, type Clock } from '../../lib/clock.ts'
import { CulvertError, errorCode, errorText, type ErrorCode, type ErrorOptions } from '../../lib/errors.ts'
import { IstioCertificateService } from '../../lib/proto/gen/istio/ca_pb.js'
import { verifyChain, type VerifiedChain } from './chain.ts'
import { bearer, type Channel } from './channel.ts'
import { createKeyAndRequest } from './csr.ts'

/** What kind of no it was; also the label of the metric. */
export type CaFailure = 'refused' | 'exhausted' | 'unavailable' | 'timeout' | 'malformed' | 'cancelled'

const CODE_OF: Record<CaFailure, ErrorCode> = {
  refused: 'DENIED',
  exhausted: 'CA',
  unavailable: 'CA',
  timeout: 'CA',
  malformed: 'PKI',
  cancelled: 'CLOSED',
}

/** Why there is no certificate. Codes: `DENIED`, `CA`, `PKI`, `CLOSED`. */
export class CaError extends CulvertError {
  override name = 'CaError'
  readonly failure: CaFailure

  constructor(failure: CaFailure, message: string, options: ErrorOptions = {}) {
    super(CODE_OF[failure], message, options)
    this.failure = failure
  }
}

export interface CertificateRequest {
  /** metadata.uid of the pod. */
  readonly podUid: string
  /** SPIFFE ID. */
  readonly identity: string
  /** Roots that are trusted beside those of the answer. */
  readonly bundle: readonly X509Certificate[]
  readonly signal: AbortSignal
  /** @default the client's */
  readonly timeoutMs?: number | undefined
}

/** A certificate that was checked, and its key. */
export interface IssuedCertificate extends VerifiedChain {
  /** PKCS #8 PEM. */
  readonly key: string
}

/** Where certificates come from. Rejects with a `CaError`. */
export interface CertificateSource {
  issue(request: CertificateRequest): Promise<IssuedCertificate>
}

export interface CaClientOptions {
  channel: Channel
  /** Called for each request: a projected token is replaced while the agent runs. */
  token: () => string | Promise<string>
  /** Sent as the `clusterid` header. */
  clusterId: string
  /** Wanted lifetime in seconds. @default 86400 */
  ttlSeconds?: number
  /** For the call as a whole. @default 10000 */
  timeoutMs?: number
  clock?: Clock
}

export class CaClient implements CertificateSource {
  readonly #options: Required<CaClientOptions>

  constructor(options: CaClientOptions) {
    this.#options = { ttlSeconds: 86_400, timeoutMs: 10_000, clock: systemClock, ...options }
  }

  async issue(request: CertificateRequest): Promise<IssuedCertificate> {
    const { key, publicKey, csr } = await createKeyAndRequest(request.identity)
    const answer = await this.#call(request, csr)
    try {
      const chain = verifyChain({
        answer,
        identity: request.identity,
        publicKey,
        bundle: request.bundle,
        nowMs: this.#options.clock.now(),
      })
      return { key, ...chain }
    } catch (err) {
      throw new CaError('malformed', errorText(err), {
        cause: err,
        ...(err instanceof CulvertError && err.hint ? { hint: err.hint } : {}),
      })
    }
  }

  async #call(request: CertificateRequest, csr: string): Promise<string[]> {
    const { channel, token, clusterId, ttlSeconds, timeoutMs } = this.#options
    const limitMs = request.timeoutMs ?? timeoutMs
    const transport = channel.transport
    try {
      const client = createClient(IstioCertificateService, transport)
      const answer = await client.createCertificate(
        {
          csr,
          validityDuration: BigInt(Math.ceil(ttlSeconds)),
          metadata: { ImpersonatedIdentity: request.identity, PodUID: request.podUid },
        },
        {
          headers: { authorization: await bearer(token), clusterid: clusterId },
          timeoutMs: limitMs,
          signal: request.signal,
        },
      )
      return answer.certChain
    } catch (err) {
      if (request.signal.aborted)
        throw new CaError('cancelled', `the request for ${request.identity} was cancelled`)
      const failure = explain(err, request.identity, channel.peer, limitMs)
      // A session that swallows calls may look alive for a long time.
      if (failure.failure === 'timeout') channel.distrust(transport)
      throw failure
    }
  }
}

function explain(thrown: unknown, identity: string, peer: string, limitMs: number): CaError {
  if (!(thrown instanceof ConnectError))
    return new CaError('unavailable', errorText(thrown), { cause: thrown })
  const said = spoken(thrown.rawMessage)
  const options = { cause: thrown.cause }
  switch (thrown.code) {
    case Code.PermissionDenied:
    case Code.Unauthenticated:
    case Code.InvalidArgument:
    case Code.FailedPrecondition:
      return new CaError('refused', `${peer} refused a certificate for ${identity}: ${said}`, {
        ...options,
        hint: "the reason is in the certificate service's own log",
      })
    case Code.ResourceExhausted:
      return new CaError(
        'exhausted',
        `${peer} is issuing as much as it may and put ${identity} off: ${said}`,
        options,
      )
    case Code.DeadlineExceeded:
      return new CaError(
        'timeout',
        `${peer} gave no certificate for ${identity} within ${limitMs} ms`,
        options,
      )
    case Code.Unimplemented:
      return new CaError('unavailable', `${peer} does not offer a certificate service: ${said}`, options)
    default:
      return new CaError('unavailable', `${peer} could not be asked for a certificate: ${said}`, {
        ...options,
        ...hintFor(thrown),
      })
  }
}

/** A message from the other side: one line, not endless. */
function spoken(message: string): string {
  const line = message.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ').trim()
  return line.length > 300 ? `${line.slice(0, 300)}…` : line || 'without a word'
}

function hintFor(thrown: ConnectError): ErrorOptions {
  const code = errorCode(thrown.cause) ?? ''
  if (code.includes('CERT') || code.includes('VERIFY') || code.includes('ISSUER'))
    return { hint: 'the server is not the one that the configured root vouches for: look at CA_ROOT_CA' }
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN')
    return { hint: 'look at CA_ADDRESS and at the DNS of the node' }
  return {}
}
