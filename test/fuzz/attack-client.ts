/**
 * The other direction: applications of a pod call an address whose tunnel port is ours, and their agent's sessions are
 * answered with the case's bytes. Whatever those are, every connection must end, and soon.
 */
import { once } from 'node:events'
import { createServer, type Server, type TLSSocket } from 'node:tls'
import { PORT } from '../../agent/ports.ts'
import { inNetns } from '../../agent/sys/netns.ts'
import { listenTcp } from '../../agent/sys/socket.ts'
import { canonicalIp } from '../../lib/address.ts'
import { errorText } from '../../lib/errors.ts'
import { Answers } from './answers.ts'
import { OVER_MS, Talk, verdict, whenOver, within, type Outcome } from './attacks.ts'
import type { Case } from './cases.ts'
import type { Scope } from './scope.ts'
import type { Target } from './target.ts'

/** Time that a session is left alone with a peer that does not end it. */
const LEFT_MS = 50

export class HostileServer {
  /** Where it can be called: the peer's agent keeps the sessions to each apart. */
  readonly addresses: readonly string[]
  readonly #target: Target
  readonly #server: Server
  readonly #sessions = new Set<TLSSocket>()
  /** By the address that was called: what is done with its sessions. */
  readonly #behave = new Map<string, (socket: TLSSocket) => void>()

  private constructor(target: Target) {
    this.#target = target
    this.addresses = [target.stranger.ip, target.stranger.ip6]
    const { key, chain, roots } = target.certificate
    this.#server = createServer({
      key,
      cert: chain,
      ca: roots,
      requestCert: true,
      ALPNProtocols: ['h2'],
      allowHalfOpen: true,
    } as never)
    this.#server.on('secureConnection', socket => {
      socket.on('error', () => socket.destroy())
      socket.once('close', () => this.#sessions.delete(socket))
      this.#sessions.add(socket)
      const behave = this.#behave.get(canonicalIp(socket.localAddress ?? '::'))
      if (behave) behave(socket)
      else socket.destroy() // who tries again finds nobody
    })
    this.#server.on('tlsClientError', () => undefined)
  }

  /** Serves the tunnel port of the pod that is in our hands. */
  static async start(scope: Scope, target: Target): Promise<HostileServer> {
    const hostile = new HostileServer(target)
    const fd = inNetns(target.stranger.fd, () => listenTcp({ port: PORT.hbone }))
    hostile.#server.listen({ fd })
    await once(hostile.#server, 'listening')
    scope.teardown(() => {
      hostile.#server.close()
      for (const socket of hostile.#sessions) socket.destroy()
    })
    return hostile
  }

  /** One case at one of the pod's addresses, where no other may be under way. Never throws. */
  async answer(one: Case, address: string): Promise<Outcome> {
    const all: Answers[] = []
    const talks: Promise<void>[] = []
    const sockets: TLSSocket[] = []
    const hangUp = () => {
      for (const socket of sockets) socket.destroy()
    }
    this.#behave.set(address, socket => {
      const answers = new Answers({ isClient: true })
      all.push(answers)
      sockets.push(socket)
      talks.push(this.#talk(socket, answers, one))
    })
    const callers = Array.from({ length: 1 + (one.way % 3) }, async () => {
      const socket = await this.#target.connect(this.#target.client, address, 80)
      const over = whenOver(socket)
      socket.resume()
      socket.write('hello, anyone?')
      return { socket, over, port: socket.localPort ?? 0 }
    })
    const called = (await Promise.allSettled(callers)).flatMap(result =>
      result.status === 'fulfilled' ? [result.value] : [],
    )
    const ports = called.map(({ port }) => port)
    try {
      // The answers first; if it then goes on, we have made a session of it, and it ends with us.
      const overs = Promise.all(called.map(({ over }) => over))
      await within(overs, LEFT_MS)
      await Promise.all(talks)
      this.#behave.delete(address)
      if (!(await within(overs, LEFT_MS))) hangUp()
      const isOver = await within(overs, OVER_MS)
      for (const answers of all) {
        const { finding } = verdict(answers, true, 'end')
        if (finding !== undefined) return { ended: 'wrongly', finding }
      }
      if (!isOver)
        return {
          ended: 'not at all',
          finding: `a connection of a pod did not end ${OVER_MS} ms after its tunnel`,
        }
      const goaway = all.find(answers => answers.goaway && answers.goaway.code !== 0)?.goaway
      return { ended: goaway ? `GOAWAY ${goaway.name}` : 'ended without GOAWAY', ports }
    } catch (err) {
      return { ended: `no connection: ${errorText(err)}` }
    } finally {
      for (const { socket } of called) socket.destroy()
      this.#behave.delete(address)
      hangUp()
    }
  }

  /** Says its bytes, in every other case not before it was asked for something. */
  async #talk(socket: TLSSocket, answers: Answers, one: Case): Promise<void> {
    const talk = new Talk(socket)
    const asked = new Promise<void>(resolve => {
      socket.on('data', (chunk: Buffer) => {
        answers.take(chunk)
        if (answers.answered > 0) resolve()
      })
      socket.once('close', resolve)
    })
    // SETTINGS have to come first, or nobody asks.
    const [first, ...others] = one.pieces
    if (one.way % 2 === 0 && first && others.length > 0) {
      await talk.say([first])
      await within(asked, LEFT_MS)
      await talk.say(others)
    } else await talk.say(one.pieces)
    await talk.end(one.ending)
  }
}
