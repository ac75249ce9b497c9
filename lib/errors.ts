/**
 * The errors that Culvert's own code throws. Messages are for an operator: what was tried, with what, and
 * what to look at; lower case, no final period. A hint, where there is one, is a line of its own under the
 * error on the command line.
 */

/** Every code, so that logs, tests and docs can name an error without its text. */
export type ErrorCode =
  | 'CONFIG' // a setting is missing or wrong
  | 'INPUT' // a file or message from outside is malformed
  | 'ADDRESS' // not an IP address, CIDR or port
  | 'SPIFFE' // not a SPIFFE ID of the mesh's shape
  | 'SYSCALL' // the kernel refused a call
  | 'NETNS' // a network namespace is gone or is not the expected one
  | 'REDIRECT' // iptables or policy routing could not be programmed
  | 'TOOL' // a program that is needed is missing or failed
  | 'PKI' // a key, certificate or request is not usable
  | 'DENIED' // the caller may not have what it asked for
  | 'CA' // the certificate service could not be used
  | 'DISCOVERY' // the discovery stream could not be used
  | 'PROTOCOL' // a peer broke HTTP/2 or HBONE rules
  | 'TLS' // a handshake failed
  | 'IDENTITY' // the peer is not who it should be
  | 'UNREACHABLE' // a connection could not be made
  | 'TIMEOUT' // something took longer than its limit
  | 'CLOSED' // used after it was closed
  | 'KUBERNETES' // the API server said no, or could not be asked
  | 'LAB' // the one-machine lab could not do what was asked

export interface ErrorOptions {
  cause?: unknown
  /** What to do about it, as one sentence. */
  hint?: string
}

export class CulvertError extends Error {
  override name = 'CulvertError'
  readonly code: ErrorCode
  readonly hint: string | undefined

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.hint = options.hint
  }
}

/**
 * The message of anything that was thrown, with the messages of its causes, and of every error that it stands
 * for: a connection that failed on each address of a name has no message of its own.
 */
export function errorText(thrown: unknown): string {
  return textOf(thrown, new Set())
}

function textOf(thrown: unknown, seen: Set<unknown>): string {
  const parts: string[] = []
  const add = (text: string) => {
    if (text && !parts.some(part => part.includes(text))) parts.push(text)
  }
  for (let at = thrown; at !== undefined && at !== null && !seen.has(at);) {
    seen.add(at)
    const several = at instanceof AggregateError ? at.errors.map(err => textOf(err, seen)).join(', ') : ''
    add(at instanceof Error ? at.message || (several ? '' : at.name) : plainText(at))
    add(several)
    at = at instanceof Error ? at.cause : undefined
  }
  return parts.join(': ')
}

function plainText(thrown: unknown): string {
  try {
    return String(thrown)
  } catch {
    return '[object]' // one without a prototype, or whose toString throws
  }
}

/** The `code` of a Node or Culvert error (`ECONNREFUSED`, `TLS`, …), or undefined. */
export function errorCode(thrown: unknown): string | undefined {
  if (typeof thrown !== 'object' || thrown === null || !('code' in thrown)) return undefined
  return typeof thrown.code === 'string' ? thrown.code : undefined
}
