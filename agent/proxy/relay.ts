/**
 * Carries bytes between an application's socket and a tunnel, or between two sockets. By hand: `pipeline`, `pipe`
 * and `for await` end both halves of a socket when one ends. Rules:
 * - FIN ↔ END_STREAM, each direction by itself; RST ↔ RST_STREAM(CONNECT_ERROR), both at once.
 * - bytes are credited to the sender only when the receiver's kernel has taken them.
 * - once one direction has ended, a silence of `halfClosedMs` in the other resets both: an application that forgets
 *   to close must not hold two descriptors and a stream for ever.
 * - the promise never rejects: how it ended is its value.
 */
import type { Socket } from 'node:net'
import { errorCode, errorText } from '../../lib/errors.ts'
import { CODE, codeName, type StreamResetError } from '../hbone/protocol.ts'
import type { Tunnel } from '../hbone/tunnel.ts'
import { endInOrder, reset } from './app-socket.ts'

export interface RelayEnd {
  /** Absent after an orderly end. */
  readonly error?: string
  readonly errorCode?: string
}

/** Counts application bytes by where they came from. */
export interface RelayCounts {
  fromApp(bytes: number): void
  toApp(bytes: number): void
}

export interface Relay {
  readonly ended: Promise<RelayEnd>
  /** Ends both sides out of order. */
  cut(why: string): void
}

/** Between the application and a tunnel. The socket must be paused, or not have been read from. */
export function relayTunnel(app: Socket, tunnel: Tunnel, counts: RelayCounts, halfClosedMs: number): Relay {
  let failure: RelayEnd | undefined
  let finish: (end: RelayEnd) => void = () => undefined
  const ended = new Promise<RelayEnd>(resolve => (finish = resolve))
  let isAppClosed = false
  const settle = () => {
    if (!isAppClosed || !tunnel.isClosed) return
    silence.end()
    finish(failure ?? {})
  }
  const fail = (error: string, code: string | undefined, h2Code: number) => {
    failure ??= code === undefined ? { error } : { error, errorCode: code }
    tunnel.reset(h2Code)
    reset(app)
  }
  const silence = new Silence(halfClosedMs, why => fail(why, 'ETIMEDOUT', CODE.cancel))

  app.on('data', (chunk: Buffer) => {
    counts.fromApp(chunk.length)
    silence.broken()
    if (!tunnel.write(chunk)) app.pause()
  })
  app.on('end', () => {
    silence.begin()
    tunnel.end()
  })
  app.on('error', err => fail(`application: ${errorText(err)}`, errorCode(err), CODE.connectError))
  app.on('close', () => {
    isAppClosed = true
    // After an orderly end both ways the tunnel may still have bytes to send.
    const isOrderly = app.readableEnded && app.writableFinished
    if (!tunnel.isClosed && !isOrderly) fail('application socket closed', undefined, CODE.connectError)
    settle()
  })
  tunnel.onClosed(settle)
  tunnel.attach({
    data: chunk => {
      if (app.destroyed || app.writableEnded) {
        tunnel.consumed(chunk.length)
        return
      }
      counts.toApp(chunk.length)
      app.write(chunk, () => {
        silence.broken()
        tunnel.consumed(chunk.length)
      })
    },
    end: () => {
      silence.begin()
      endInOrder(app)
    },
    drain: () => {
      silence.broken()
      app.resume()
    },
    reset: (error: StreamResetError) => {
      if (error.byPeer) failure ??= { error: error.message, errorCode: codeName(error.h2Code) }
      reset(app)
    },
  })
  if (app.destroyed) {
    isAppClosed = true
    fail('application closed the connection', 'ECONNRESET', CODE.connectError)
    settle()
  } else app.resume()
  return { ended, cut: why => fail(why, 'CUT', CODE.connectError) }
}

/** Between two sockets, for traffic that stays as it is. Both must be paused, or not have been read from. */
export function relaySockets(app: Socket, peer: Socket, counts: RelayCounts, halfClosedMs: number): Relay {
  let failure: RelayEnd | undefined
  let finish: (end: RelayEnd) => void = () => undefined
  const ended = new Promise<RelayEnd>(resolve => (finish = resolve))
  let open = 2
  const fail = (error: string, code: string | undefined) => {
    failure ??= code === undefined ? { error } : { error, errorCode: code }
    reset(app)
    reset(peer)
  }
  const silence = new Silence(halfClosedMs, why => fail(why, 'ETIMEDOUT'))
  const carry = (from: Socket, to: Socket, name: string, count: (bytes: number) => void) => {
    from.on('data', (chunk: Buffer) => {
      count(chunk.length)
      silence.broken()
      if (!to.write(chunk)) from.pause()
    })
    to.on('drain', () => {
      silence.broken()
      from.resume()
    })
    from.on('end', () => {
      silence.begin()
      endInOrder(to)
    })
    from.on('error', err => fail(`${name}: ${errorText(err)}`, errorCode(err)))
    from.on('close', hadError => {
      if (!hadError && !(from.readableEnded && from.writableFinished))
        fail(`${name} socket closed`, undefined)
      if (--open > 0) return
      silence.end()
      finish(failure ?? {})
    })
  }
  carry(app, peer, 'application', bytes => counts.fromApp(bytes))
  carry(peer, app, 'peer', bytes => counts.toApp(bytes))
  if (app.destroyed || peer.destroyed) {
    fail('closed before anything was carried', 'ECONNRESET')
    finish(failure ?? {})
  } else {
    app.resume()
    peer.resume()
  }
  return { ended, cut: why => fail(why, 'CUT') }
}

/** Watches a connection from the end of its first direction on. */
class Silence {
  readonly #longestMs: number
  readonly #onTooLong: (why: string) => void
  #timer: NodeJS.Timeout | undefined

  constructor(longestMs: number, onTooLong: (why: string) => void) {
    this.#longestMs = longestMs
    this.#onTooLong = onTooLong
  }

  begin(): void {
    const tooLong = () => this.#onTooLong(`half-closed, and silent for ${this.#longestMs} ms`)
    this.#timer ??= setTimeout(tooLong, this.#longestMs).unref()
  }

  /** Bytes have passed. */
  broken(): void {
    this.#timer?.refresh()
  }

  end(): void {
    clearTimeout(this.#timer)
  }
}
