/**
 * A discovery client that keeps nothing of what it is told but counts: gRPC frames taken from HTTP/2 by hand, so that a
 * dozen of them cost less than the server that they measure.
 */
import { connect, type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2'
import { create, fromBinary, toBinary, type MessageInitShape } from '@bufbuild/protobuf'
import { CulvertError } from '../../lib/errors.ts'
import {
  DeltaDiscoveryRequestSchema,
  DeltaDiscoveryResponseSchema,
  type DeltaDiscoveryResponse,
} from '../../lib/proto/gen/envoy/discovery_pb.js'

export interface DiscoveryClientOptions {
  readonly url: string
  /** PEM. */
  readonly root: string
  readonly token: string
  readonly types: readonly string[]
  /** Called for each response, before it is acknowledged. */
  readonly take: (response: DeltaDiscoveryResponse) => void
  /** The stream ended, which it never should. */
  readonly failed: (err: CulvertError) => void
}

const PATH = '/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources'
const WINDOW_BYTES = 4 * 1024 * 1024
/** A flag and the length of the message. */
const HEADER_BYTES = 5

export class DiscoveryClient {
  readonly #options: DiscoveryClientOptions
  readonly #session: ClientHttp2Session
  readonly #stream: ClientHttp2Stream
  #chunks: Buffer[] = []
  #bytes = 0
  /** Of the longest response, as it was on the wire. */
  largestBytes = 0

  constructor(options: DiscoveryClientOptions) {
    this.#options = options
    const { url, root, token, types } = options
    this.#session = connect(url, { ca: root, settings: { initialWindowSize: WINDOW_BYTES } })
    this.#session.on('connect', () => this.#session.setLocalWindowSize(4 * WINDOW_BYTES))
    this.#session.on('error', err => this.#end(err))
    this.#stream = this.#session.request({
      ':method': 'POST',
      ':path': PATH,
      'content-type': 'application/grpc',
      te: 'trailers',
      authorization: `Bearer ${token}`,
    })
    this.#stream.on('error', err => this.#end(err))
    this.#stream.on('close', () => this.#end(undefined))
    this.#stream.on('data', (chunk: Buffer) => this.#hear(chunk))
    for (const typeUrl of types) this.#send({ typeUrl, node: { id: 'bench' } })
  }

  close(): void {
    this.#session.destroy()
  }

  #send(request: MessageInitShape<typeof DeltaDiscoveryRequestSchema>): void {
    const message = toBinary(DeltaDiscoveryRequestSchema, create(DeltaDiscoveryRequestSchema, request))
    const header = Buffer.alloc(HEADER_BYTES)
    header.writeUInt32BE(message.length, 1)
    this.#stream.write(Buffer.concat([header, message]))
  }

  #hear(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#bytes += chunk.length
    while (this.#bytes >= HEADER_BYTES) {
      const [first] = this.#chunks
      const all = first!.length >= HEADER_BYTES ? first! : this.#joined()
      const length = all.readUInt32BE(1) + HEADER_BYTES
      if (this.#bytes < length) return
      const frame = this.#joined()
      this.#chunks = frame.length > length ? [frame.subarray(length)] : []
      this.#bytes -= length
      this.#take(frame.subarray(HEADER_BYTES, length))
    }
  }

  #joined(): Buffer {
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks)]
    return this.#chunks[0]!
  }

  #take(message: Buffer): void {
    this.largestBytes = Math.max(this.largestBytes, message.length)
    const response = fromBinary(DeltaDiscoveryResponseSchema, message)
    this.#options.take(response)
    this.#send({ typeUrl: response.typeUrl, responseNonce: response.nonce })
  }

  #end(err: Error | undefined): void {
    if (this.#session.destroyed && err === undefined) return
    this.#options.failed(new CulvertError('DISCOVERY', 'a discovery stream ended', { cause: err }))
  }
}
