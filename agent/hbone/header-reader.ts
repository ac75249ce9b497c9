/** Header blocks to fields, with the checks that RFC 9113 asks of every message. One per connection, in order. */
import { errorText } from '../../lib/errors.ts'
import { HpackDecoder } from './hpack/decoder.ts'
import { CODE, SessionError } from './protocol.ts'

/** What a header block held. */
export interface DecodedHeaders {
  readonly fields: Map<string, string>
  /** A pseudo-header came twice or after a regular one, or a name or value holds what none may (RFC 9113 §8.2.1, §8.3). */
  readonly isMalformed: boolean
  /** The list is longer than we allow: the stream is refused, the session lives. */
  readonly isTooLarge: boolean
}

// oxlint-disable no-control-regex -- control characters are what is looked for
const BAD_NAME = /[A-Z\x00-\x20\x7f-\xff]|^$|.:/
const BAD_VALUE = /[\x00\r\n]|^[ \t]|[ \t]$/
// oxlint-enable no-control-regex

export class HeaderReader {
  readonly #decoder: HpackDecoder

  constructor(maxHeaderListSize: number) {
    this.#decoder = new HpackDecoder({ maxTableSize: 4096, maxHeaderListSize })
  }

  /** Must be given every block of the connection, wanted or not: the table is common. Throws `SessionError`. */
  read(block: Buffer): DecodedHeaders {
    const fields = new Map<string, string>()
    let isMalformed = false
    let sawRegular = false
    let isTooLarge = false
    try {
      isTooLarge = !this.#decoder.decode(block, (name, value) => {
        const isPseudo = name.charCodeAt(0) === 0x3a
        const before = fields.get(name)
        if (
          BAD_NAME.test(name) ||
          BAD_VALUE.test(value) ||
          (isPseudo && (sawRegular || before !== undefined))
        )
          isMalformed = true
        if (!isPseudo) sawRegular = true
        fields.set(name, before === undefined || isPseudo ? value : `${before}, ${value}`)
      })
    } catch (err) {
      throw new SessionError(CODE.compressionError, errorText(err), { cause: err })
    }
    return { fields, isMalformed, isTooLarge }
  }
}
