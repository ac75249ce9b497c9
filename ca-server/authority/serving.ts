/**
 * The server's own certificate, kept fresh: renewed at half of its life and whenever the issuer changes, by the
 * authority it fronts. While a renewal fails the old one serves.
 */
import { Backoff } from '../../lib/backoff.ts'
import { errorText } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import type { Authority, ServingCertificate } from './authority.ts'

export interface ServingOptions {
  readonly authority: Authority
  readonly dns: readonly string[]
  readonly ips: readonly string[]
  readonly ttlMs: number
  /** Takes each new certificate into use, the first one excepted. */
  readonly renewed: (certificate: ServingCertificate) => void
  readonly log: Logger
}

/** Makes the first certificate, then renews until the signal aborts. Rejects only when the first one fails. */
export async function keepServingCertificate(
  options: ServingOptions,
  signal: AbortSignal,
): Promise<ServingCertificate> {
  const { authority, renewed, log } = options
  const backoff = new Backoff({ firstMs: 1000, maxMs: 60_000 })
  let timer: NodeJS.Timeout | undefined
  const make = async (): Promise<ServingCertificate> => {
    const certificate = await authority.issueServing(options, options.ttlMs)
    backoff.reset()
    // Half of what is left: the issuer's end may be nearer than the lifetime asked for.
    again(Math.max(1000, (certificate.notAfter.getTime() - Date.now()) / 2))
    log.info({ not_after: certificate.notAfter.toISOString() }, 'serving certificate made')
    return certificate
  }
  const again = (afterMs: number): void => {
    clearTimeout(timer)
    if (!signal.aborted) timer = setTimeout(renew, afterMs)
  }
  const renew = (): void => {
    if (signal.aborted) return
    make().then(renewed, (err: unknown) => {
      log.error({ err: errorText(err) }, 'serving certificate not renewed, the old one stays')
      again(backoff.next())
    })
  }
  const first = await make()
  authority.onChange(renew)
  signal.addEventListener('abort', () => clearTimeout(timer))
  return first
}
