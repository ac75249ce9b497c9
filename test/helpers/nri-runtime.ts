/**
 * A container runtime that stands in for containerd: a Unix socket, NRI's two connections on it, and calls of a plugin as
 * a test says. It may also say what no runtime says.
 */
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { create, fromBinary, toBinary, type MessageInitShape } from '@bufbuild/protobuf'
import type { Test } from 'tap'
import { messageBytes, MessageReader, REQUEST, RESPONSE } from '../../agent/pods/nri/message.ts'
import {
  Demultiplexer,
  framesOf,
  PLUGIN_CONNECTION,
  RUNTIME_CONNECTION,
} from '../../agent/pods/nri/multiplex.ts'
import {
  ConfigureRequestSchema,
  ConfigureResponseSchema,
  Event,
  PodSandboxSchema,
  RegisterPluginRequestSchema,
  StateChangeEventSchema,
  SynchronizeRequestSchema,
  SynchronizeResponseSchema,
  type RegisterPluginRequest,
} from '../../lib/proto/gen/nri/nri_pb.js'
import {
  RequestSchema,
  ResponseSchema,
  StatusSchema,
  type Response,
} from '../../lib/proto/gen/nri/ttrpc_pb.js'

export type Sandbox = Exclude<MessageInitShape<typeof PodSandboxSchema>, { $typeName: string }>

const PLUGIN = 'nri.pkg.api.v1alpha1.Plugin'

let sockets = 0

/** A sandbox as containerd tells of it, in this process's own network namespace unless said otherwise. */
export function sandbox(uid: string, more: Sandbox = {}): Sandbox {
  return {
    id: `sandbox-${uid}`,
    uid,
    name: uid,
    namespace: 'shop',
    annotations: { 'kubernetes.io/config.source': 'api' },
    linux: { namespaces: [{ type: 'ipc' }, { type: 'network', path: '/proc/self/ns/net' }] },
    pid: 1,
    ips: ['fd00::1', '10.0.0.1'],
    ...more,
  }
}

export class StandInRuntime {
  readonly socket: string
  #server: Server | undefined
  readonly #sockets = new Set<Socket>()
  #plugins: RuntimePlugin[] = []
  #arrived = Promise.withResolvers<void>()

  constructor(t: Test) {
    this.socket = join(tmpdir(), `culvert-nri-${process.pid}-${sockets++}.sock`)
    t.teardown(() => this.stop())
  }

  async start(): Promise<this> {
    this.#server = createServer(socket => {
      this.#sockets.add(socket)
      this.#plugins.push(new RuntimePlugin(socket))
      this.#arrived.resolve()
    })
    this.#server.listen(this.socket)
    await once(this.#server, 'listening')
    return this
  }

  /** As when its process ends. */
  async stop(): Promise<void> {
    const server = this.#server
    if (!server) return
    this.#server = undefined
    const closed = once(server, 'close')
    server.close()
    for (const socket of this.#sockets) socket.destroy()
    this.#sockets.clear()
    this.#plugins = []
    await closed
    rmSync(this.socket, { force: true })
  }

  /** The next plugin that connects, and nothing more. */
  async connected(): Promise<RuntimePlugin> {
    while (this.#plugins.length === 0) {
      this.#arrived = Promise.withResolvers()
      await this.#arrived.promise
    }
    return this.#plugins.shift()!
  }

  /** The next plugin, registered, configured and told of these sandboxes. */
  async plugin(sandboxes: readonly Sandbox[] = [], requestTimeoutMs = 2000): Promise<RuntimePlugin> {
    const plugin = await this.connected()
    await plugin.registered
    await plugin.configure(requestTimeoutMs)
    await plugin.synchronize(sandboxes)
    return plugin
  }
}

export class RuntimePlugin {
  readonly socket: Socket
  /** What it has registered as; it is answered at once. */
  readonly registered: Promise<RegisterPluginRequest>
  readonly closed: Promise<unknown>
  readonly #calls = new Map<number, (response: Response) => void>()
  #lastStream = -1

  constructor(socket: Socket) {
    this.socket = socket
    socket.on('error', () => undefined)
    this.closed = new Promise(resolve => socket.on('close', resolve))
    const { promise, resolve } = Promise.withResolvers<RegisterPluginRequest>()
    this.registered = promise
    const fromPlugin = new MessageReader(({ stream, body }) => {
      const request = fromBinary(RequestSchema, body)
      if (request.method !== 'RegisterPlugin') throw new Error(`unexpected call: ${request.method}`)
      const response = toBinary(ResponseSchema, create(ResponseSchema, {}))
      this.send(RUNTIME_CONNECTION, messageBytes({ stream, type: RESPONSE, body: response }))
      resolve(fromBinary(RegisterPluginRequestSchema, request.payload))
    })
    const answers = new MessageReader(({ stream, body }) => {
      this.#calls.get(stream)?.(fromBinary(ResponseSchema, body))
      this.#calls.delete(stream)
    })
    const demultiplexer = new Demultiplexer((connection, bytes) =>
      (connection === RUNTIME_CONNECTION ? fromPlugin : answers).push(bytes),
    )
    socket.on('data', (bytes: Buffer) => demultiplexer.push(bytes))
  }

  /** Anything at all on one of the two connections. */
  send(connection: number, bytes: Uint8Array): void {
    for (const frame of framesOf(connection, bytes)) this.socket.write(frame)
  }

  /** Calls the plugin and gives its answer; rejects when the connection ends first. */
  async call(method: string, payload: Uint8Array = new Uint8Array(0)): Promise<Response> {
    const stream = (this.#lastStream += 2)
    const { promise, resolve } = Promise.withResolvers<Response>()
    this.#calls.set(stream, resolve)
    const body = toBinary(RequestSchema, create(RequestSchema, { service: PLUGIN, method, payload }))
    this.send(PLUGIN_CONNECTION, messageBytes({ stream, type: REQUEST, body }))
    return Promise.race([
      promise,
      this.closed.then(() => Promise.reject(new Error('the plugin has ended the connection'))),
    ])
  }

  /** Gives the mask of the events that it wants. */
  async configure(requestTimeoutMs = 2000): Promise<number> {
    const request = create(ConfigureRequestSchema, {
      runtimeName: 'stand-in',
      runtimeVersion: '1.0',
      registrationTimeout: 5000n,
      requestTimeout: BigInt(requestTimeoutMs),
    })
    const { payload } = await this.call('Configure', toBinary(ConfigureRequestSchema, request))
    return fromBinary(ConfigureResponseSchema, payload).events
  }

  /** Tells of all these, so many in one message; gives what it answered to each. */
  async synchronize(
    sandboxes: readonly Sandbox[],
    perMessage = Math.max(1, sandboxes.length),
  ): Promise<boolean[]> {
    const answers: boolean[] = []
    let at = 0
    do {
      const pods = sandboxes.slice(at, (at += perMessage)).map(each => create(PodSandboxSchema, each))
      const request = create(SynchronizeRequestSchema, { pods, more: at < sandboxes.length })
      const { payload } = await this.call('Synchronize', toBinary(SynchronizeRequestSchema, request))
      answers.push(fromBinary(SynchronizeResponseSchema, payload).more)
    } while (at < sandboxes.length)
    return answers
  }

  changed(event: 'RUN' | 'STOP' | 'REMOVE', pod: Sandbox): Promise<Response> {
    const message = create(StateChangeEventSchema, {
      event: Event[`${event}_POD_SANDBOX`],
      pod: create(PodSandboxSchema, pod),
    })
    return this.call('StateChange', toBinary(StateChangeEventSchema, message))
  }

  /** Answers a call that was not made, or was made long ago. */
  answer(stream: number, code = 0, message = ''): void {
    const status = create(StatusSchema, { code, message })
    const body = toBinary(ResponseSchema, create(ResponseSchema, { status }))
    this.send(RUNTIME_CONNECTION, messageBytes({ stream, type: RESPONSE, body }))
  }
}
