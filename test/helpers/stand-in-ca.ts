/** A certificate service that stands in for the ca-server: real gRPC, real certificates, and it misbehaves on request. */
import type { HandlerContext } from '@connectrpc/connect'
import { IstioCertificateService, type IstioCertificateRequest } from '../../lib/proto/gen/istio/ca_pb.js'
import { startConnectServer, type ConnectServer } from './connect-server.ts'
import { createRoot, issueLeaf, issueServer, requestKey, type Authority } from './test-pki.ts'

export interface Asked {
  readonly identity: string
  readonly podUid: string
  readonly authorization: string | null
  readonly clusterId: string | null
  readonly validitySeconds: number
}

type Answer = (asked: Asked, request: IstioCertificateRequest, context: HandlerContext) => Promise<string[]>

export class StandInCa {
  readonly root: Authority
  readonly #credentials: { key: string; cert: string }
  #server: ConnectServer | undefined
  /** Lifetime of what is issued, seconds. */
  ttlSeconds = 86_400
  /** Every call, in order. */
  readonly asked: Asked[] = []
  /** What is answered; the default is an honest certificate. */
  answer: Answer = (asked, request) => this.issue(request.csr, asked.identity)

  private constructor(root: Authority, credentials: { key: string; cert: string }) {
    this.root = root
    this.#credentials = credentials
  }

  static async start(): Promise<StandInCa> {
    const root = await createRoot('stand-in root')
    const ca = new StandInCa(root, await issueServer(root))
    await ca.listen()
    return ca
  }

  get url(): URL {
    return this.#listening().url
  }

  get connections(): number {
    return this.#listening().connections
  }

  /** Listens again after `stop()`, on the same port. */
  async listen(): Promise<void> {
    this.#server = await startConnectServer(
      this.#credentials,
      router =>
        router.service(IstioCertificateService, {
          createCertificate: async (request, context) => {
            const asked = {
              identity: textOf(request.metadata?.['ImpersonatedIdentity']),
              podUid: textOf(request.metadata?.['PodUID']),
              authorization: context.requestHeader.get('authorization'),
              clusterId: context.requestHeader.get('clusterid'),
              validitySeconds: Number(request.validityDuration),
            }
            this.asked.push(asked)
            return { certChain: await this.answer(asked, request, context) }
          },
        }),
      this.#server?.port,
    )
  }

  async stop(): Promise<void> {
    await this.#server?.stop()
  }

  /** Leaf and root, as a ca-server answers. */
  async issue(csr: string, identity: string, ttlSeconds = this.ttlSeconds): Promise<string[]> {
    const notAfterMs = Date.now() + ttlSeconds * 1000
    const leaf = await issueLeaf(this.root, await requestKey(csr), { identity, notAfterMs })
    return [leaf, this.root.pem]
  }

  #listening(): ConnectServer {
    if (!this.#server) throw new Error('the stand-in CA has not been started')
    return this.#server
  }
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}
