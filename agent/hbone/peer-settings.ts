/** What the peer's SETTINGS allow us (RFC 9113 §6.5.2); the defaults hold until they come. */
import type { Side } from './session-end.ts'
import { CODE, DEFAULT_MAX_FRAME, DEFAULT_WINDOW, MAX_WINDOW, SETTING, SessionError } from './protocol.ts'

export class PeerSettings {
  hasCome = false
  /** Streams we may have open. */
  maxStreams = Number.POSITIVE_INFINITY
  /** Bytes we may send on a new stream. */
  initialWindow = DEFAULT_WINDOW
  maxFrame = DEFAULT_MAX_FRAME
  /** Undefined while the peer has not said: the protocol's 4096. */
  headerTableSize: number | undefined
  /** The smallest that the last SETTINGS passed through: the peer's decoder shrank to it (RFC 7541 §4.2). */
  lowestTableSize: number | undefined
  readonly #side: Side

  /** `side` is ours. */
  constructor(side: Side) {
    this.#side = side
  }

  /** Takes a SETTINGS frame in. Gives by how much the windows of open streams change. Throws `SessionError`. */
  apply(payload: Buffer): number {
    const windowBefore = this.initialWindow
    this.lowestTableSize = undefined
    for (let at = 0; at < payload.length; at += 6)
      this.#set(payload.readUInt16BE(at), payload.readUInt32BE(at + 2))
    return this.initialWindow - windowBefore
  }

  #set(id: number, value: number): void {
    switch (id) {
      case SETTING.headerTableSize:
        this.headerTableSize = value
        this.lowestTableSize = Math.min(value, this.lowestTableSize ?? value)
        break
      case SETTING.enablePush:
        // A server has nobody to allow it to push.
        if (value > (this.#side === 'client' ? 0 : 1))
          throw new SessionError(CODE.protocolError, `ENABLE_PUSH of ${value}`)
        break
      case SETTING.maxConcurrentStreams:
        this.maxStreams = value
        break
      case SETTING.initialWindowSize:
        if (value > MAX_WINDOW)
          throw new SessionError(CODE.flowControlError, `INITIAL_WINDOW_SIZE of ${value}`)
        this.initialWindow = value
        break
      case SETTING.maxFrameSize:
        if (value < DEFAULT_MAX_FRAME || value > 0xff_ffff)
          throw new SessionError(CODE.protocolError, `MAX_FRAME_SIZE of ${value}`)
        this.maxFrame = value
        break
      default: // MAX_HEADER_LIST_SIZE is advice that our short lists never come near; unknown ones are ignored
    }
  }
}
