/**
 * The `forwarded` header of a tunnel (RFC 7239): which client it carries, and which service the client asked
 * for. One element with `for` and `host` is all that mesh peers send; other parameters are passed over, and
 * what breaks the grammar is not read at all. Whatever it says is a claim of the peer: good for a log line,
 * never for a decision.
 */
import { formatAddress, parseAddress, type SocketAddress } from '../../lib/address.ts'

export interface Forwarded {
  /** The client's socket, as its node's agent accepted it. */
  readonly for?: SocketAddress | undefined
  /** Host name of the service, lower case. */
  readonly host?: string | undefined
}

/** Four times the longest that an honest peer sends: an IPv6 address, a port and a host name of 253 characters. */
const MAX_LENGTH = 1280

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/ // RFC 9110 §5.6.2

/** One `name=value` and the `;` after it, the value a token or a quoted string (RFC 7239 §4, RFC 9110 §5.6.4). */
const PAIR =
  /([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)|"((?:[\t !#-[\]-~\u0080-\u00ff]|\\[\t -~\u0080-\u00ff])*)")(?:;|$)/y

const HOST_NAME = /^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/

/** `for="10.1.2.2:51234";host=echo.shop.svc.cluster.local`. A host that is no token is left out. */
export function formatForwarded(forwarded: Forwarded): string {
  const parts: string[] = []
  // RFC 7239 §6: quoted, because a colon is no token character.
  if (forwarded.for) parts.push(`for="${formatAddress(forwarded.for.ip, forwarded.for.port)}"`)
  if (forwarded.host !== undefined && TOKEN.test(forwarded.host)) parts.push(`host=${forwarded.host}`)
  return parts.join(';')
}

/**
 * Reads the header; undefined when it is malformed, too long, empty or a list of several hops. `for` is there
 * when it is an address with a port, `host` when it is a host name.
 */
export function parseForwarded(text: string): Forwarded | undefined {
  if (text === '' || text.length > MAX_LENGTH) return undefined
  const values = new Map<string, string>()
  for (let at = 0; at < text.length; at = PAIR.lastIndex) {
    PAIR.lastIndex = at
    const match = PAIR.exec(text)
    if (!match) return undefined
    const name = match[1]!.toLowerCase()
    if (values.has(name)) return undefined // RFC 7239 §4: each at most once
    values.set(name, match[2] ?? match[3]!.replaceAll(/\\(.)/gs, '$1'))
  }
  const client = parseAddress(values.get('for') ?? '')
  const host = values.get('host')?.toLowerCase() ?? ''
  return { ...(client && { for: client }), ...(HOST_NAME.test(host) && { host }) }
}
