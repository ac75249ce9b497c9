/**
 * The lab's service-account tokens: what a kubelet would project into the agents' pods, signed by a key that
 * lives in the supervisor's memory only. The ca-server gets the public half as a JWKS file.
 */
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import type { CryptoKey } from 'jose'
import { AGENT_NAMESPACE, AGENT_SERVICE_ACCOUNT } from '../cluster/nodes.ts'

export const TOKEN_ISSUER = 'https://culvert.lab'
export const TOKEN_AUDIENCE = 'culvert-ca'

/** As a kubelet asks for them by default. */
const LIFETIME_SECONDS = 3600
const KEY_ID = 'lab'

export interface TokenSubject {
  readonly node: string
  readonly nodeUid: string
  readonly pod: string
  readonly podUid: string
  readonly serviceAccountUid: string
}

export class TokenSigner {
  readonly #key: CryptoKey
  /** The JWKS file's text. */
  readonly jwks: string

  private constructor(key: CryptoKey, jwks: string) {
    this.#key = key
    this.jwks = jwks
  }

  static async create(): Promise<TokenSigner> {
    const { publicKey, privateKey } = await generateKeyPair('ES256')
    const jwk = { ...(await exportJWK(publicKey)), kid: KEY_ID, alg: 'ES256', use: 'sig' }
    return new TokenSigner(privateKey, JSON.stringify({ keys: [jwk] }))
  }

  /** A token with the claims of a Kubernetes projected token (kubernetes.io/docs: service account tokens). */
  sign(subject: TokenSubject): Promise<string> {
    const nowSeconds = Math.floor(Date.now() / 1000)
    return new SignJWT({
      'kubernetes.io': {
        namespace: AGENT_NAMESPACE,
        node: { name: subject.node, uid: subject.nodeUid },
        pod: { name: subject.pod, uid: subject.podUid },
        serviceaccount: { name: AGENT_SERVICE_ACCOUNT, uid: subject.serviceAccountUid },
      },
    })
      .setProtectedHeader({ alg: 'ES256', kid: KEY_ID })
      .setIssuer(TOKEN_ISSUER)
      .setAudience([TOKEN_AUDIENCE])
      .setSubject(`system:serviceaccount:${AGENT_NAMESPACE}:${AGENT_SERVICE_ACCOUNT}`)
      .setIssuedAt(nowSeconds)
      .setNotBefore(nowSeconds)
      .setExpirationTime(nowSeconds + LIFETIME_SECONDS)
      .sign(this.#key)
  }
}

/** Tokens are replaced when half of their life is over. */
export const TOKEN_RENEWAL_MS = (LIFETIME_SECONDS / 2) * 1000
