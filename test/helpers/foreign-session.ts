/**
 * A session of ours, in either role, with a peer at its other end that sends whatever frames a test likes, and the
 * verdict: what the session made of them. A verdict is one line of text, so that a table of cases reads like the RFC:
 * `passes`, `stream error STREAM_CLOSED`, `connection error PROTOCOL_ERROR`, `answered 400`.
 */
import type { Test } from 'tap'
import { ClientSession } from '../../agent/hbone/client.ts'
import { DEFAULT_SESSION, type SessionOptions } from '../../agent/hbone/limits.ts'
import { FLAG, FRAME, SessionError, codeName } from '../../agent/hbone/protocol.ts'
import { ServerSession, type ConnectRequest } from '../../agent/hbone/server.ts'
import type { Session } from '../../agent/hbone/session.ts'
import type { Tunnel } from '../../agent/hbone/tunnel.ts'
import { RawPeer, data, rst, settings } from './raw-peer.ts'
import { socketPair } from './tcp.ts'
import { Receiver } from './tunnel.ts'

export const TARGET = '10.0.0.1:80'

export type Role = 'server' | 'client'

/** Our session and what stands against it. */
export interface Probe<S extends Session = Session> {
  readonly session: S
  readonly peer: RawPeer
  /** Resolves once the session has ended, with why. */
  readonly ended: Promise<Error | undefined>
}

export interface ServerProbe extends Probe<ServerSession> {
  /** Requests that the session has passed on, in order. */
  readonly requests: ConnectRequest[]
}

export interface ProbeOptions {
  readonly session?: Partial<SessionOptions>
  /** The peer's first SETTINGS; false: it says nothing by itself. @default none of them set */
  readonly settings?: readonly [id: number, value: number][] | false
}

export interface ServerProbeOptions extends ProbeOptions {
  /** @default answers 200, takes what comes and credits it */
  readonly onConnect?: (request: ConnectRequest) => void
}

/** A server session of ours, and a client that is not. */
export async function probeServer(t: Test, options: ServerProbeOptions = {}): Promise<ServerProbe> {
  const { onConnect = accept } = options
  const [near, far] = await socketPair(t)
  near.on('error', () => undefined)
  const requests: ConnectRequest[] = []
  const session = new ServerSession(far, { ...DEFAULT_SESSION, ...options.session }, request => {
    requests.push(request)
    onConnect(request)
  })
  t.teardown(() => session.destroy())
  const peer = new RawPeer(near)
  if (options.settings !== false) peer.hello(...(options.settings ?? []))
  return { session, peer, requests, ended: endOf(session) }
}

/** A client session of ours, and a server that is not. */
export async function probeClient(t: Test, options: ProbeOptions = {}): Promise<Probe<ClientSession>> {
  const [near, far] = await socketPair(t)
  far.on('error', () => undefined)
  const session = new ClientSession(near, { ...DEFAULT_SESSION, ...options.session })
  t.teardown(() => session.destroy())
  const peer = new RawPeer(far, { isServer: true })
  if (options.settings !== false) {
    peer.send(settings(...(options.settings ?? [])))
    await session.ready()
  }
  return { session, peer, ended: endOf(session) }
}

function endOf(session: Session): Promise<Error | undefined> {
  return new Promise(resolve => session.onClosed(resolve))
}

/** Says 200 and takes what comes. */
export function accept(request: ConnectRequest): Receiver {
  request.respond(200)
  return new Receiver(request.tunnel)
}

/** What the session made of everything sent so far, as far as `peer.frames` goes beyond `since`. */
export async function verdict({ peer, session, ended }: Probe, since = 0): Promise<string> {
  await peer.pong().catch(() => undefined) // acknowledged, it has read all; not acknowledged, it has ended
  if (session.isClosed || peer.isClosed) {
    const error = await ended
    if (error === undefined) return 'connection closed in order'
    return error instanceof SessionError ? `connection error ${codeName(error.h2Code)}` : error.message
  }
  const seen: string[] = []
  for (const { type, flags, streamId, payload } of peer.frames.slice(since)) {
    if (type === FRAME.goaway) seen.push(`connection error ${codeName(payload.readUInt32BE(4))}`)
    if (type === FRAME.rstStream) seen.push(`stream error ${codeName(payload.readUInt32BE())}`)
    if (type === FRAME.headers && flags & FLAG.endStream) seen.push(`answered ${await peer.status(streamId)}`)
  }
  return seen.join(', ') || 'passes'
}

/** RFC 9113 §5.1, of stream 1; `asked` is open before the answer. */
export const STATES = [
  'idle',
  'asked',
  'open',
  'half-closed by the peer',
  'half-closed by us',
  'ended both ways',
  'reset by the peer',
  'reset by us',
] as const

export type State = (typeof STATES)[number]

/** A session whose stream 1 is in this state, and how many frames the peer had seen by then. */
export async function inState(t: Test, role: Role, state: State): Promise<Probe & { since: number }> {
  const probe = role === 'server' ? await probeServer(t, { onConnect: keep }) : await probeClient(t)
  const { peer } = probe
  if (state !== 'idle') {
    const stream = await ask(probe)
    if (state !== 'asked') await move(peer, state, await stream.open())
  }
  await peer.pong()
  return { ...probe, since: peer.frames.length }
}

function keep(): void {}

interface Opened {
  readonly tunnel: Tunnel
  readonly received: Receiver
}

async function ask(
  probe: ServerProbe | Probe<ClientSession> | Probe,
): Promise<{ open: () => Promise<Opened> }> {
  const { peer, session } = probe
  if (session instanceof ClientSession) {
    const opening = session.connect(TARGET, [])
    opening.catch(() => undefined)
    await peer.frame(({ type }) => type === FRAME.headers)
    return {
      open: async () => {
        peer.headers(1, [[':status', '200']])
        const { tunnel } = await opening
        return { tunnel, received: new Receiver(tunnel) }
      },
    }
  }
  peer.connect(1, TARGET)
  await peer.pong()
  const request = (probe as ServerProbe).requests[0]!
  return {
    open: async () => {
      const received = accept(request)
      await peer.status(1)
      return { tunnel: request.tunnel, received }
    },
  }
}

async function move(peer: RawPeer, state: State, { tunnel, received }: Opened): Promise<void> {
  if (state === 'half-closed by the peer' || state === 'ended both ways') {
    peer.send(data(1, Buffer.from('bye'), FLAG.endStream))
    await received.ended
  }
  if (state === 'half-closed by us' || state === 'ended both ways') {
    tunnel.end()
    await peer.frame(({ type, flags }) => type === FRAME.data && (flags & FLAG.endStream) !== 0)
  }
  if (state === 'reset by the peer') {
    peer.send(rst(1, 0x8))
    await received.ended
  }
  if (state === 'reset by us') {
    tunnel.reset()
    await peer.resetCode(1)
  }
}
