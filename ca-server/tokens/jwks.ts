/**
 * Tokens checked offline against a set of public keys (RFC 7517), as a cluster publishes them at its
 * `/openid/v1/jwks`. Claims: those of Kubernetes projected service-account tokens.
 */
import { createLocalJWKSet, errors, jwtVerify, type JSONWebKeySet } from 'jose'
import { CulvertError, errorText } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import { FileWatch } from '../file-watch.ts'
import { Refusal, type TokenRefusal } from '../refusal.ts'
import type { Caller, TokenAuthenticator } from './authenticator.ts'
import { callerFromClaims } from './claims.ts'

export interface JwksOptions {
  readonly file: string
  readonly issuer: string
  readonly audience: string
  readonly log: Logger
}

// Never `none`, never a shared secret: keys of a key set are public.
const ALGORITHMS = ['ES256', 'ES384', 'RS256', 'RS384', 'RS512', 'PS256', 'EdDSA']
const CLOCK_TOLERANCE_SECONDS = 5

type KeySet = ReturnType<typeof createLocalJWKSet>

export class JwksAuthenticator implements TokenAuthenticator {
  readonly #options: JwksOptions
  readonly #watch: FileWatch
  #keys: KeySet | undefined

  private constructor(options: JwksOptions) {
    this.#options = options
    this.#watch = new FileWatch({
      paths: [options.file],
      load: ([text]) => this.#load(text!),
      failed: err =>
        options.log.error(
          { err: errorText(err), file: options.file },
          'new key set not usable, the old stays',
        ),
    })
  }

  /** Reads the key set. Throws `INPUT` when it is none, or the file system's error. */
  static async open(options: JwksOptions): Promise<JwksAuthenticator> {
    const authenticator = new JwksAuthenticator(options)
    await authenticator.#watch.loadNow()
    return authenticator
  }

  /** Takes changes of the key set until the signal aborts. */
  follow(signal: AbortSignal): void {
    this.#watch.follow(signal)
  }

  async authenticate(token: string): Promise<Caller> {
    try {
      return await this.#verify(token)
    } catch (err) {
      if (!(err instanceof errors.JWKSNoMatchingKey)) throw refusalOf(err)
    }
    // Signed by a key that is newer than what was read last.
    await this.#watch.check()
    try {
      return await this.#verify(token)
    } catch (err) {
      throw refusalOf(err)
    }
  }

  async #verify(token: string): Promise<Caller> {
    const { issuer, audience } = this.#options
    const { payload } = await jwtVerify(token, this.#keys!, {
      issuer,
      audience,
      algorithms: ALGORITHMS,
      clockTolerance: CLOCK_TOLERANCE_SECONDS,
      requiredClaims: ['exp', 'sub'],
    })
    return callerFromClaims(payload, audience)
  }

  #load(text: string): void {
    let parsed: unknown
    try {
      parsed = JSON.parse(text)
      this.#keys = createLocalJWKSet(parsed as JSONWebKeySet)
    } catch (err) {
      throw new CulvertError('INPUT', `${this.#options.file} is not a JSON Web Key Set`, { cause: err })
    }
    const { keys } = parsed as JSONWebKeySet
    const secret = keys.find(key => key.d !== undefined || key.k !== undefined)
    if (secret)
      this.#options.log.warn(
        { file: this.#options.file, kid: secret.kid },
        'the key set holds a private key: only public ones belong there',
      )
    this.#options.log.info({ file: this.#options.file, keys: keys.length }, 'token keys loaded')
  }
}

function refusalOf(err: unknown): Error {
  if (err instanceof Refusal) return err
  const [reason, message] = explain(err)
  return new Refusal(reason, message, { cause: err })
}

function explain(err: unknown): [TokenRefusal, string] {
  if (err instanceof errors.JWTExpired) return ['token-expired', 'the token has expired']
  if (err instanceof errors.JWTClaimValidationFailed) {
    if (err.claim === 'iss') return ['token-issuer', 'the token is from another issuer']
    if (err.claim === 'aud') return ['token-audience', 'the token is for another audience']
    if (err.claim === 'nbf') return ['token-expired', 'the token is not valid yet']
    return ['token-claims', `the token's claim ${err.claim} is missing or wrong`]
  }
  if (err instanceof errors.JWKSNoMatchingKey || err instanceof errors.JWKSMultipleMatchingKeys)
    return ['token-signature', 'no key of the key set signed the token']
  if (err instanceof errors.JWSSignatureVerificationFailed)
    return ['token-signature', "the token's signature is wrong"]
  if (err instanceof errors.JOSEAlgNotAllowed)
    return ['token-signature', "the token's algorithm is not allowed"]
  return ['token-malformed', 'the token is not a signed JWT']
}
