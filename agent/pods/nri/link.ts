/**
 * Calls in both directions over the runtime's socket. A link that has failed once, by whatever breach, time limit or end,
 * is closed with everything that waits on it; whoever wants another one connects again.
 */
import type { Socket } from 'node:net'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { CulvertError, errorText } from '../../../lib/errors.ts'
import {
  RequestSchema,
  ResponseSchema,
  StatusSchema,
  type Response,
} from '../../../lib/proto/gen/nri/ttrpc_pb.js'
import { printable } from '../../../lib/printable.ts'
import { messageBytes, MessageReader, REQUEST, RESPONSE, type Message } from './message.ts'
import { Demultiplexer, framesOf, PLUGIN_CONNECTION, RUNTIME_CONNECTION } from './multiplex.ts'

/** What answers the runtime's calls: the bytes of the answer, or undefined when there is no such method. */
export type CallHandler = (
  service: string,
  method: string,
  payload: Uint8Array,
) => Promise<Uint8Array | undefined>

interface Call {
  readonly what: string
  readonly resolve: (payload: Uint8Array) => void
  readonly reject: (err: unknown) => void
  readonly timer: NodeJS.Timeout
}

/** The runtime makes one call at a time; this many at once are a fault. */
const MAX_CALLS = 256
/** A runtime that does not read its answers. */
const MAX_BACKLOG_BYTES = 8 * 1024 * 1024
/** As gRPC numbers them. */
const STATUS = { internal: 13, unimplemented: 12 } as const

export class NriLink {
  readonly #socket: Socket
  readonly #handle: CallHandler
  readonly #ended = Promise.withResolvers<CulvertError>()
  readonly #calls = new Map<number, Call>()
  #lastStream = -1
  #answering = 0
  #why: CulvertError | undefined

  /** The socket is the link's from here on, connected or about to be. */
  constructor(socket: Socket, handle: CallHandler) {
    this.#socket = socket
    this.#handle = handle
    const toPlugin = new MessageReader(message => this.#takeRequest(message))
    const toCalls = new MessageReader(message => this.#takeResponse(message))
    // Connections of other numbers are none of ours: what they carry is dropped.
    const demultiplexer = new Demultiplexer((connection, bytes) => {
      if (connection === PLUGIN_CONNECTION) toPlugin.push(bytes)
      else if (connection === RUNTIME_CONNECTION) toCalls.push(bytes)
    })
    socket.on('error', err =>
      this.#end(new CulvertError('UNREACHABLE', 'NRI: connection failed', { cause: err })),
    )
    socket.on('close', () =>
      this.#end(new CulvertError('CLOSED', 'NRI: the container runtime closed the connection')),
    )
    socket.on('data', (bytes: Buffer) => {
      if (this.#why) return
      try {
        demultiplexer.push(bytes)
      } catch (err) {
        this.#end(
          err instanceof CulvertError
            ? err
            : new CulvertError('PROTOCOL', 'NRI: not a ttrpc message', { cause: err }),
        )
      }
    })
  }

  /** Resolves with the reason when the link has ended. Never rejects. */
  get ended(): Promise<CulvertError> {
    return this.#ended.promise
  }

  /** Calls the runtime. Rejects with `TIMEOUT`, with `DENIED` when the runtime says no, or with why the link has ended. */
  call(service: string, method: string, payload: Uint8Array, timeoutMs: number): Promise<Uint8Array> {
    if (this.#why) return Promise.reject(this.#why)
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>()
    const stream = (this.#lastStream += 2)
    const timer = setTimeout(
      () => this.#end(new CulvertError('TIMEOUT', `NRI: no answer to ${method} within ${timeoutMs} ms`)),
      timeoutMs,
    )
    this.#calls.set(stream, { what: method, resolve, reject, timer })
    const request = create(RequestSchema, {
      service,
      method,
      payload,
      timeoutNano: BigInt(timeoutMs) * 1_000_000n,
    })
    this.#send(RUNTIME_CONNECTION, { stream, type: REQUEST, body: toBinary(RequestSchema, request) })
    return promise
  }

  close(): void {
    this.#end(new CulvertError('CLOSED', 'NRI: connection closed'))
  }

  #takeRequest({ stream, type, body }: Message): void {
    if (type !== REQUEST || stream % 2 === 0)
      throw new CulvertError('PROTOCOL', `NRI: a message of type ${type} on stream ${stream} is no request`)
    if (this.#answering >= MAX_CALLS)
      throw new CulvertError('PROTOCOL', `NRI: more than ${MAX_CALLS} calls at once`)
    const { service, method, payload } = fromBinary(RequestSchema, body, SKIP_UNKNOWN)
    this.#answering++
    void this.#answer(service, method, payload).then(response => {
      this.#answering--
      this.#send(PLUGIN_CONNECTION, { stream, type: RESPONSE, body: toBinary(ResponseSchema, response) })
    })
  }

  async #answer(service: string, method: string, payload: Uint8Array): Promise<Response> {
    const refusal = (code: number, message: string) =>
      create(ResponseSchema, { status: create(StatusSchema, { code, message }) })
    try {
      const answer = await this.#handle(service, method, payload)
      if (answer) return create(ResponseSchema, { payload: answer })
      return refusal(STATUS.unimplemented, `${service}/${method} is not there`)
    } catch (err) {
      return refusal(STATUS.internal, errorText(err))
    }
  }

  #takeResponse({ stream, type, body }: Message): void {
    if (type !== RESPONSE)
      throw new CulvertError('PROTOCOL', `NRI: a message of type ${type} on stream ${stream} is no response`)
    const { status, payload } = fromBinary(ResponseSchema, body, SKIP_UNKNOWN)
    const call = this.#calls.get(stream)
    if (!call) return
    this.#calls.delete(stream)
    clearTimeout(call.timer)
    if (status && status.code !== 0)
      call.reject(
        new CulvertError(
          'DENIED',
          `NRI: the container runtime refused ${call.what}: ${printable(status.message, 200)} (code ${status.code})`,
        ),
      )
    else call.resolve(payload)
  }

  #send(connection: number, message: Message): void {
    if (this.#why) return
    for (const frame of framesOf(connection, messageBytes(message))) this.#socket.write(frame)
    if (this.#socket.writableLength > MAX_BACKLOG_BYTES)
      this.#end(new CulvertError('PROTOCOL', 'NRI: the container runtime does not read its answers'))
  }

  #end(why: CulvertError): void {
    if (this.#why) return
    this.#why = why
    this.#socket.destroy()
    for (const { timer, reject } of this.#calls.values()) {
      clearTimeout(timer)
      reject(why)
    }
    this.#calls.clear()
    this.#ended.resolve(why)
  }
}

const SKIP_UNKNOWN = { readUnknownFields: false } as const
