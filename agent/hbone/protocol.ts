/**
 * HTTP/2 on the wire (RFC 9113): numbers, limits and the error that every rule violation becomes.
 */
import { CulvertError } from '../../lib/errors.ts'
import type { LimitName } from './limits.ts'

/** RFC 9113 §6. */
export const FRAME = {
  data: 0x0,
  headers: 0x1,
  priority: 0x2,
  rstStream: 0x3,
  settings: 0x4,
  pushPromise: 0x5,
  ping: 0x6,
  goaway: 0x7,
  windowUpdate: 0x8,
  continuation: 0x9,
} as const

export const FLAG = { endStream: 0x1, ack: 0x1, endHeaders: 0x4, padded: 0x8, priority: 0x20 } as const

/** RFC 9113 §6.5.2. */
export const SETTING = {
  headerTableSize: 0x1,
  enablePush: 0x2,
  maxConcurrentStreams: 0x3,
  initialWindowSize: 0x4,
  maxFrameSize: 0x5,
  maxHeaderListSize: 0x6,
} as const

/** RFC 9113 §7. */
export const CODE = {
  noError: 0x0,
  protocolError: 0x1,
  internalError: 0x2,
  flowControlError: 0x3,
  settingsTimeout: 0x4,
  streamClosed: 0x5,
  frameSizeError: 0x6,
  refusedStream: 0x7,
  cancel: 0x8,
  compressionError: 0x9,
  connectError: 0xa,
  enhanceYourCalm: 0xb,
  inadequateSecurity: 0xc,
  http11Required: 0xd,
} as const

const CODE_NAMES = [
  'NO_ERROR',
  'PROTOCOL_ERROR',
  'INTERNAL_ERROR',
  'FLOW_CONTROL_ERROR',
  'SETTINGS_TIMEOUT',
  'STREAM_CLOSED',
  'FRAME_SIZE_ERROR',
  'REFUSED_STREAM',
  'CANCEL',
  'COMPRESSION_ERROR',
  'CONNECT_ERROR',
  'ENHANCE_YOUR_CALM',
  'INADEQUATE_SECURITY',
  'HTTP_1_1_REQUIRED',
]

/** `CONNECT_ERROR`, or the number in hex for a code nobody defined. */
export function codeName(code: number): string {
  return CODE_NAMES[code] ?? `0x${code.toString(16)}`
}

export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1')
export const FRAME_HEADER_BYTES = 9
/** RFC 9113 §6.2, §6.3: dependency and weight, in HEADERS and PRIORITY. */
export const PRIORITY_BYTES = 5
/** RFC 9113 §6.9.1: no window may grow past this. */
export const MAX_WINDOW = 0x7fff_ffff
/** RFC 9113 §6.5.2: what a peer may send before its SETTINGS say otherwise. */
export const DEFAULT_MAX_FRAME = 16_384
export const DEFAULT_WINDOW = 65_535

/** A connection error: the session ends with a GOAWAY that carries `h2Code`. */
export class SessionError extends CulvertError {
  override name = 'SessionError'
  readonly h2Code: number
  /** The limit that the peer went over, when it was one. */
  readonly limit: LimitName | undefined

  constructor(h2Code: number, message: string, options: { cause?: unknown; limit?: LimitName } = {}) {
    super('PROTOCOL', `${message} (${codeName(h2Code)})`, options)
    this.h2Code = h2Code
    this.limit = options.limit
  }
}

/** How a tunnel ended when it did not end in order. */
export class StreamResetError extends CulvertError {
  override name = 'StreamResetError'
  readonly h2Code: number
  /** Whether the peer said so, or this side. */
  readonly byPeer: boolean
  /** The peer cannot have acted on the stream (REFUSED_STREAM, or past its GOAWAY): trying elsewhere is safe. */
  readonly isRetryable: boolean

  constructor(
    h2Code: number,
    message: string,
    options: { byPeer: boolean; isRetryable?: boolean; cause?: unknown },
  ) {
    super('CLOSED', message, { cause: options.cause })
    this.h2Code = h2Code
    this.byPeer = options.byPeer
    this.isRetryable = options.isRetryable ?? h2Code === CODE.refusedStream
  }
}
