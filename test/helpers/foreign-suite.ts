/**
 * What every foreign peer must be able to do with ours, in both roles: over mutual TLS, against a real inbound listener and
 * from a real outbound session, with applications at the far ends that know nothing of it. What a peer's own interface has
 * no way to do is said in its `Abilities`, with the reason, and is not asked of it.
 */
import { createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import type { ForeignKind } from './foreign-peer.ts'

export interface Abilities {
  readonly kind: ForeignKind
  /** The code with which it resets a stream, as client and as server: CONNECT_ERROR where its library lets it choose. */
  readonly resetsWith: { readonly client: number; readonly server: number }
  /** Whether its library tells a server with which code a stream was reset. */
  readonly seesCode: boolean
  /** Whether it can end its half first and go on reading, as server. */
  readonly halfClosesFirst: boolean
  /** Whether it can be told how many streams to allow at once, as server. */
  readonly limitsStreams: boolean
  /** Whether its connection's window, as server, is larger than a stream's: one that stalls stops no other. */
  readonly stallsAlone: boolean
  /** Whether its library tells of a GOAWAY. */
  readonly seesGoaway: boolean
}

export const MIB = 1024 * 1024
export const STRANGER = 'spiffe://cluster.local/ns/shop/sa/stranger'
/** More than windows and kernels hold between the two ends. */
export const STALL_BYTES = 32 * MIB

export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** Everything until the end; not `for await`, which would end both halves. */
export async function collect(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  await new Promise((resolve, reject) => {
    socket.once('end', resolve)
    socket.once('error', reject)
  })
  return Buffer.concat(chunks)
}
