/** Header blocks to fields, with the checks that RFC 9113 asks of every message. One per connection, in order. */
import { errorText } from '../../lib/errors.ts'
import { HpackDecoder } from './hpack/decoder.ts'
import { CODE, SessionError } from './protocol.ts'

/** What a header block held. */
export interface DecodedHeaders {
  readonly fields: Map<string, string>
  /**
   * A pseudo-header is none of this kind of message, came twice or after a regular one; a field is about the connection;
   * or a name or value holds what none may (RFC 9113 §8.2, §8.3).
   */
  readonly isMalformed: boolean
  /** The list is longer than we allow: the stream is refused, the session lives. */
  readonly isTooLarge: boolean
}

export type MessageKind = 'request' | 'response'

/** RFC 9113 §8.3.1, §8.3.2; RFC 8441's `:protocol` is for who announces that it takes it. */
const PSEUDO: Readonly<Record<MessageKind, ReadonlySet<string>>> = {
  request: new Set([':method', ':authority', ':scheme', ':path']),
  response: new Set([':status']),
}
/** RFC 9113 §8.2.2: what concerned the connection in HTTP/1.1. */
const OF_THE_CONNECTION: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
])

export class HeaderReader {
  readonly #decoder: HpackDecoder
  readonly #pseudo: ReadonlySet<string>

  /** For messages of one kind: what a server is sent, or a client. */
  constructor(maxHeaderListSize: number, kind: MessageKind) {
    this.#decoder = new HpackDecoder({ maxTableSize: 4096, maxHeaderListSize })
    this.#pseudo = PSEUDO[kind]
  }

  /** Must be given every block of the connection, wanted or not: the table is common. Throws `SessionError`. */
  read(block: Buffer): DecodedHeaders {
    const fields = new Map<string, string>()
    let isMalformed = false
    let sawRegular = false
    let isTooLarge = false
    try {
      isTooLarge = !this.#decoder.decode(block, (name, value) => {
        const isPseudo = name.charCodeAt(0) === COLON
        const before = fields.get(name)
        if (isPseudo) {
          if (sawRegular || before !== undefined || !this.#pseudo.has(name)) isMalformed = true
        } else {
          sawRegular = true
          if (!isFieldName(name) || isOfTheConnection(name, value)) isMalformed = true
        }
        if (!isFieldValue(value)) isMalformed = true
        fields.set(name, before === undefined || isPseudo ? value : `${before}, ${value}`)
      })
    } catch (err) {
      throw new SessionError(CODE.compressionError, errorText(err), { cause: err })
    }
    return { fields, isMalformed, isTooLarge }
  }
}

const TAB = 0x09
const SPACE = 0x20
const COLON = 0x3a

/** RFC 9113 §8.2.1, for names that are no pseudo-header's: visible ASCII without capitals and colons. */
function isFieldName(name: string): boolean {
  for (let at = 0; at < name.length; at++) {
    const char = name.charCodeAt(at)
    if (char <= SPACE || char >= 0x7f || char === COLON || (char >= 0x41 && char <= 0x5a)) return false
  }
  return name.length > 0
}

/** RFC 9113 §8.2.1: no NUL, line feed or carriage return, and no white space at either end. */
function isFieldValue(value: string): boolean {
  for (let at = 0; at < value.length; at++) {
    const char = value.charCodeAt(at)
    if (char <= 0x0d && (char === 0 || char === 0x0a || char === 0x0d)) return false
  }
  return !isBlank(value.charCodeAt(0)) && !isBlank(value.charCodeAt(value.length - 1))
}

function isBlank(char: number): boolean {
  return char === SPACE || char === TAB
}

function isOfTheConnection(name: string, value: string): boolean {
  return name === 'te' ? value.toLowerCase() !== 'trailers' : OF_THE_CONNECTION.has(name)
}
