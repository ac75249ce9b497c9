/** How each kind of case is carried out, and how it ended. An attack never throws: what went wrong is its value. */
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { CODE } from '../../agent/hbone/protocol.ts'
import { PORT } from '../../agent/ports.ts'
import { errorText } from '../../lib/errors.ts'
import { abort } from '../helpers/tcp.ts'
import { Answers } from './answers.ts'
import type { Case, Ending } from './cases.ts'
import type { Target } from './target.ts'

export interface Outcome {
  /** A few words; cases that end alike have the same. */
  readonly ended: string
  /** What should not have been. */
  readonly finding?: string
  /** Of the connections that were made, on the side of who called. */
  readonly ports?: readonly number[]
}

/** Without a byte for so long it is quiet. */
const QUIET_MS = 15
const MOST_QUIET_MS = 250
/** Longer than anyone may be silent in a preface. */
const LEFT_MS = 700
/** What ends by itself, ends within this: a little more than all the target's own patience. */
export const OVER_MS = 6000

/** A member of the mesh, or whoever can reach the pod, against its ports. */
export async function attack(target: Target, one: Case): Promise<Outcome> {
  try {
    if (one.kind === 'to-server') return await toServer(target, one)
    return await toPort(target, one)
  } catch (err) {
    // The connection did not come about: the listener may have had enough of them for a moment.
    return { ended: `no connection: ${errorText(err)}` }
  }
}

async function toServer(target: Target, one: Case): Promise<Outcome> {
  const raw = await target.connect(target.stranger, target.server.ip, PORT.hbone)
  const socket = connectTls({
    socket: raw,
    secureContext: target.context,
    ALPNProtocols: ['h2'],
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
  })
  const answers = new Answers()
  const over = whenOver(socket)
  const ports = [raw.localPort ?? 0]
  try {
    const stands = new Promise<void>((resolve, reject) => {
      socket.once('secureConnect', resolve)
      socket.once('close', () => reject(new Error('closed during the handshake')))
    })
    await stands
    const talk = new Talk(socket)
    socket.on('data', (chunk: Buffer) => answers.take(chunk))
    await talk.say(one.pieces)
    await talk.end(one.ending)
    const patience = { reset: 0, leave: LEFT_MS, end: OVER_MS, quiet: OVER_MS }[one.ending]
    return { ...verdict(answers, await within(over, patience), one.ending), ports }
  } finally {
    socket.destroy()
    raw.destroy()
  }
}

/** Ways to get bytes to a port: the tunnel port and those of captured traffic, by redirection and directly. */
async function toPort(target: Target, one: Case): Promise<Outcome> {
  const { server, client, stranger } = target
  const ways =
    one.kind === 'to-tls'
      ? ([[stranger, server.ip, PORT.hbone]] as const)
      : ([
          [stranger, server.ip, 7000],
          [stranger, server.ip6, 7003],
          [stranger, server.ip, PORT.inbound],
          [stranger, server.ip, PORT.outbound],
          [stranger, client.ip, PORT.hbone],
          [client, server.ip, 7000],
          [client, server.ip6, 7002],
          [client, server.ip, 7001],
          [client, client.ip, PORT.outbound],
          [client, '10.77.0.99', 80],
        ] as const)
  const [from, host, port] = ways[one.way % ways.length]!
  const socket = await target.connect(from, host, port)
  const ports = [socket.localPort ?? 0]
  const over = whenOver(socket)
  let received = 0
  socket.on('data', (chunk: Buffer) => (received += chunk.length))
  try {
    const talk = new Talk(socket)
    await talk.say(one.pieces)
    await talk.end(one.ending)
    // An application that reads slowly has every right to take its time.
    if (port === 7001 || one.ending === 'leave' || one.ending === 'reset')
      return { ended: 'given up by us', ports }
    if (await within(over, OVER_MS))
      return { ended: received > 0 ? 'ended with an answer' : 'ended without a word', ports }
    return { ended: 'did not end', finding: `a connection to port ${port} did not end within ${OVER_MS} ms` }
  } finally {
    socket.destroy()
  }
}

/** One side of a connection that says what it was told to. */
export class Talk {
  readonly #socket: Duplex
  #heardAt = performance.now()
  #isOver = false

  constructor(socket: Duplex) {
    this.#socket = socket
    socket.on('data', () => (this.#heardAt = performance.now()))
    void whenOver(socket).then(() => (this.#isOver = true))
  }

  /** Writes piece after piece, each in a write of its own, as long as anyone is there. */
  async say(pieces: readonly Buffer[]): Promise<void> {
    for (const [at, piece] of pieces.entries()) {
      if (this.#isOver || this.#socket.destroyed) return
      if (!this.#socket.write(piece)) await this.#drained()
      else if (at % 4 === 0) await new Promise(resolve => setImmediate(resolve))
    }
  }

  async end(ending: Ending): Promise<void> {
    if (ending === 'reset') return abort(this.#socket)
    if (ending === 'quiet') await this.quiet()
    if (ending !== 'leave') this.#socket.end()
  }

  /** Nothing comes any more, or it has come for long. */
  async quiet(): Promise<void> {
    const begunAt = performance.now()
    this.#heardAt = begunAt
    while (!this.#isOver) {
      const now = performance.now()
      if (now - this.#heardAt >= QUIET_MS || now - begunAt >= MOST_QUIET_MS) return
      await sleep(5)
    }
  }

  /** Room to write, or an end, or a peer that will not read on. */
  async #drained(): Promise<void> {
    await within(
      new Promise<void>(resolve => {
        this.#socket.once('drain', resolve)
        this.#socket.once('close', resolve)
      }),
      MOST_QUIET_MS,
    )
  }
}

/** The end of a connection, in whatever way. */
export function whenOver(socket: Duplex): Promise<void> {
  return new Promise(resolve => {
    socket.on('error', () => socket.destroy())
    socket.once('end', resolve)
    socket.once('close', resolve)
  })
}

/** Reports whether it came about in time. */
export async function within(what: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<false>(resolve => (timer = setTimeout(() => resolve(false), ms)))
  try {
    return await Promise.race([what.then(() => true), late])
  } finally {
    clearTimeout(timer)
  }
}

/** Judges what a data plane said to damaged frames; `isOver`: it has ended the connection in time. */
export function verdict(answers: Answers, isOver: boolean, ending: Ending): Outcome {
  const { goaway, problem } = answers
  const ended = goaway
    ? `GOAWAY ${goaway.name}`
    : ending === 'reset'
      ? 'reset by us'
      : isOver
        ? 'ended without GOAWAY'
        : 'left open'
  if (problem !== undefined) return { ended, finding: `what came back is no HTTP/2: ${problem}` }
  if (goaway && isOurFault(goaway.code, goaway.text))
    return { ended, finding: `GOAWAY ${goaway.name}: ${goaway.text}` }
  if (!isOver && ending !== 'leave' && ending !== 'reset')
    return { ended, finding: `a session did not end within ${OVER_MS} ms` }
  return { ended }
}

/** A peer can be wrong in every way there is, but not make an error inside us. */
export function isOurFault(code: number, text: string): boolean {
  return (
    code === CODE.internalError || /RangeError|TypeError|out of range|undefined|is not a function/.test(text)
  )
}
