/**
 * Carries bytes between an application's socket and a tunnel, or between two sockets. Rules:
 * - nothing is read for which there is no room on the other side; one buffer serves all connections of the thread.
 * - FIN ↔ END_STREAM, each direction by itself; RST ↔ RST_STREAM(CONNECT_ERROR), both at once.
 * - bytes are credited to the sender only when the receiver's kernel has taken them.
 * - once one direction has ended, a silence of `halfClosedMs` in the other resets both: an application that forgets
 *   to close must not hold two descriptors and a stream for ever.
 * - the owner is told once how it ended.
 */
import { errorText } from '../../lib/errors.ts'
import { CODE, codeName, FRAME_HEADER_BYTES, type StreamResetError } from '../hbone/protocol.ts'
import type { Tunnel, TunnelHandlers } from '../hbone/tunnel.ts'
import { isShared, Mover, SMALL_PORTION } from '../io/portion.ts'
import { NOTHING, type SocketFailure, type TcpOwner, type TcpSocket } from '../io/tcp.ts'
import { endInOrder } from './app-socket.ts'
import { Silence } from './silence.ts'

export interface RelayEnd {
  /** Absent after an orderly end. */
  readonly error?: string
  readonly errorCode?: string
}

/** Whom a relay tells. */
export interface RelayOwner {
  /** Bytes of the application (the first of two sockets) have passed, or bytes for it. */
  fromApp(bytes: number): void
  toApp(bytes: number): void
  /** It is over; told once, and the last that is heard of it. */
  ended(end: RelayEnd): void
}

export interface Relay {
  /** Ends both sides out of order. */
  cut(why: string): void
}

/**
 * Read at once from one application, when nobody waits for something small: enough for few system calls, and small enough
 * to stay in the processor's cache.
 */
const CHUNK = 256 * 1024
/** A frame's header goes in front of what is read, without moving it. Synchronous use, one for the thread. */
const chunk = Buffer.allocUnsafeSlow(FRAME_HEADER_BYTES + CHUNK)
const payload = chunk.subarray(FRAME_HEADER_BYTES)

function portion(): number {
  return isShared() ? SMALL_PORTION : CHUNK
}

/** Between the application and a tunnel. The socket must be paused. */
export function relayTunnel(app: TcpSocket, tunnel: Tunnel, owner: RelayOwner, halfClosedMs: number): Relay {
  return new TunnelRelay(app, tunnel, owner, halfClosedMs)
}

// Thousands of these live at a time: no closure, promise or array that one can do without.
class TunnelRelay implements Relay, TcpOwner, TunnelHandlers {
  readonly #app: TcpSocket
  readonly #tunnel: Tunnel
  readonly #owner: RelayOwner
  readonly #halfClosedMs: number
  /** Begins with the end of the first direction. */
  #silence: Silence | undefined
  #failure: RelayEnd | undefined
  #hasAppEnded = false
  #isOver = false
  /** Received for the application and not yet with its kernel. */
  #owed = 0

  constructor(app: TcpSocket, tunnel: Tunnel, owner: RelayOwner, halfClosedMs: number) {
    this.#app = app
    this.#tunnel = tunnel
    this.#owner = owner
    this.#halfClosedMs = halfClosedMs
    app.owner = this
    tunnel.attach(this)
    if (app.isClosed) this.#fail('application closed the connection', 'ECONNRESET', CODE.connectError)
    else app.resume()
  }

  cut(why: string): void {
    this.#fail(why, 'CUT', CODE.connectError)
  }

  // === from the application ===

  readable(): void {
    const app = this.#app
    const tunnel = this.#tunnel
    if (tunnel.isClosed) return this.#readInVain()
    const room = Math.min(tunnel.room, portion())
    if (room === 0) {
      app.pause()
      tunnel.waitForRoom()
      return
    }
    const count = app.read(payload, room)
    if (count === NOTHING) return
    if (count === 0) return this.#appEnded()
    this.#owner.fromApp(count)
    this.#silence?.broken()
    tunnel.sendInPlace(chunk, count)
  }

  /** The far side has ended, and wants no more. */
  #readInVain(): void {
    if (this.#app.read(payload, CHUNK) === 0) this.#appEnded()
  }

  drained(): void {
    this.#silence?.broken()
    const taken = this.#owed - this.#app.queued
    this.#owed -= taken
    if (taken > 0) this.#tunnel.consumed(taken)
  }

  failed(error: SocketFailure): void {
    this.#fail(`application: ${errorText(error)}`, error.code, CODE.connectError)
  }

  #appEnded(): void {
    this.#hasAppEnded = true
    this.#app.pause()
    this.#watchSilence()
    this.#tunnel.end()
    this.#closeIfDone()
  }

  // === from the tunnel ===

  data(bytes: Buffer): void {
    const app = this.#app
    if (app.isClosed) return this.#tunnel.consumed(bytes.length)
    this.#owner.toApp(bytes.length)
    this.#owed += bytes.length
    app.write(bytes)
    this.drained()
  }

  end(): void {
    this.#watchSilence()
    endInOrder(this.#app, () => this.#closeIfDone())
  }

  drain(): void {
    this.#silence?.broken()
    this.#app.resume()
  }

  closed(): void {
    if (!this.#hasAppEnded) this.#app.resume() // it may have waited for room, and its end is still to be seen
    this.#settle()
  }

  reset(error: StreamResetError): void {
    if (error.byPeer) this.#failure ??= { error: error.message, errorCode: codeName(error.h2Code) }
    this.#app.reset()
    this.#settle()
  }

  // === the end ===

  #closeIfDone(): void {
    if (!this.#hasAppEnded || !this.#app.isEnded) return
    this.#app.destroy()
    this.#settle()
  }

  #fail(error: string, code: string, h2Code: number): void {
    if (this.#app.isClosed && this.#tunnel.isClosed && this.#failure) return
    this.#failure ??= { error, errorCode: code }
    this.#app.reset()
    this.#tunnel.reset(h2Code)
    this.#settle()
  }

  #watchSilence(): void {
    this.#silence ??= new Silence(this.#halfClosedMs, why => this.#fail(why, 'ETIMEDOUT', CODE.cancel))
  }

  #settle(): void {
    if (this.#isOver || !this.#app.isClosed || !this.#tunnel.isClosed) return
    this.#isOver = true
    this.#silence?.end()
    // What the application took last, or never took: the session's window is not its to keep.
    const owed = this.#owed
    this.#owed = 0
    if (owed > 0) this.#tunnel.consumed(owed)
    this.#owner.ended(this.#failure ?? {})
  }
}

/** Between two sockets, for traffic that stays as it is. Both must be paused. */
export function relaySockets(
  app: TcpSocket,
  peer: TcpSocket,
  owner: RelayOwner,
  halfClosedMs: number,
): Relay {
  return new SocketRelay(app, peer, owner, halfClosedMs)
}

class SocketRelay implements Relay {
  readonly owner: RelayOwner
  readonly #sides: readonly [OneWay, OneWay]
  readonly #halfClosedMs: number
  #silence: Silence | undefined
  #isOver = false

  constructor(app: TcpSocket, peer: TcpSocket, owner: RelayOwner, halfClosedMs: number) {
    this.owner = owner
    this.#halfClosedMs = halfClosedMs
    this.#sides = [new OneWay(this, 'application', app, peer), new OneWay(this, 'peer', peer, app)]
    if (app.isClosed || peer.isClosed) this.fail('closed before anything was carried', 'ECONNRESET')
    app.resume()
    peer.resume()
  }

  cut(why: string): void {
    this.fail(why, 'CUT')
  }

  moved(): void {
    this.#silence?.broken()
  }

  sideEnded(): void {
    this.#silence ??= new Silence(this.#halfClosedMs, why => this.fail(why, 'ETIMEDOUT'))
    const isDone = this.#sides.every(side => side.hasEnded && side.from.isEnded)
    if (!isDone) return
    for (const side of this.#sides) side.from.destroy()
    this.#over({})
  }

  fail(error: string, errorCode: string): void {
    for (const side of this.#sides) side.from.reset()
    this.#over({ error, errorCode })
  }

  #over(end: RelayEnd): void {
    this.#silence?.end()
    if (this.#isOver) return
    this.#isOver = true
    this.owner.ended(end)
  }
}

/** What one of two sockets has to say, toward the other. */
class OneWay implements TcpOwner {
  readonly from: TcpSocket
  hasEnded = false
  readonly #mover = new Mover()
  readonly #to: TcpSocket
  readonly #relay: SocketRelay
  readonly #name: 'application' | 'peer'

  constructor(relay: SocketRelay, name: 'application' | 'peer', from: TcpSocket, to: TcpSocket) {
    this.#relay = relay
    this.#name = name
    this.from = from
    this.#to = to
    from.owner = this
  }

  readable(): void {
    const count = this.from.read(payload, portion())
    if (count === NOTHING) return
    if (count === 0) {
      this.hasEnded = true
      this.from.pause()
      endInOrder(this.#to, () => this.#relay.sideEnded())
      this.#relay.sideEnded()
      return
    }
    if (this.#name === 'application') this.#relay.owner.fromApp(count)
    else this.#relay.owner.toApp(count)
    this.#mover.moved(count)
    this.#relay.moved()
    if (!this.#to.write(payload.subarray(0, count))) this.from.pause()
  }

  /** This side's kernel has taken what the other had sent: the other may go on. */
  drained(): void {
    this.#relay.moved()
    if (this.from.queued === 0 && !this.#to.isClosed && !this.from.isEnded) this.#to.resume()
  }

  failed(error: SocketFailure): void {
    this.#relay.fail(`${this.#name}: ${errorText(error)}`, error.code)
  }
}
