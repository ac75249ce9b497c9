/**
 * One case: what is sent, to whom, and how it ends. A case is made of the seed, its number and the captures alone, and
 * can be written to a file that makes it again without them.
 */
import { bendBytes, cutUp, MAX_BYTES } from './bend-bytes.ts'
import { bendFrames } from './bend-frames.ts'
import type { Capture } from './captures.ts'
import { Random } from './random.ts'
import { parseWire, wireBytes } from './wire.ts'

/**
 * | kind | what is done |
 * |---|---|
 * | to-server | a member of the mesh sends damaged HTTP/2 to the tunnel port |
 * | to-client | a tunnel port answers a pod's sessions with damaged HTTP/2 |
 * | to-tls | damaged TLS, or none at all, on the tunnel port |
 * | to-capture | whatever bytes on the ports of captured traffic |
 */
export type Kind = 'to-server' | 'to-client' | 'to-tls' | 'to-capture'

/** After the last byte: end in order at once, or once it is quiet; reset; or leave it to the other side. */
export type Ending = 'end' | 'quiet' | 'reset' | 'leave'

export interface Case {
  readonly seed: number
  readonly number: number
  readonly kind: Kind
  /** Written one by one. */
  readonly pieces: readonly Buffer[]
  readonly ending: Ending
  /** Which of the ways there are for the kind. */
  readonly way: number
}

/** Every eighth number; who carries those out is not who carries out the others. */
const TO_CLIENT_EVERY = 8

export function isToClient(number: number): boolean {
  return number % TO_CLIENT_EVERY === TO_CLIENT_EVERY - 1
}

export interface Sources {
  readonly captures: readonly Capture[]
  /** TLS client hellos. */
  readonly hellos: readonly Buffer[]
  /** Authorities that are carried. */
  readonly authorities: readonly string[]
}

export function makeCase(seed: number, number: number, sources: Sources): Case {
  const random = new Random(seed, number)
  const kind = isToClient(number)
    ? 'to-client'
    : random.weighted<Kind>([
        [6, 'to-server'],
        [1, 'to-tls'],
        [1, 'to-capture'],
      ])
  const ending = random.weighted<Ending>([
    [4, 'end'],
    [5, 'quiet'],
    [2, 'reset'],
    [1, 'leave'],
  ])
  const bytes = bytesOf(kind, random, sources).subarray(0, MAX_BYTES)
  return { seed, number, kind, pieces: cutUp(bytes, random), ending, way: random.int(1000) }
}

function bytesOf(kind: Kind, random: Random, sources: Sources): Buffer {
  if (kind === 'to-server' || kind === 'to-client') return http2Bytes(random, sources, kind === 'to-client')
  const hello = random.pick(sources.hellos)
  if (kind === 'to-capture')
    return random.once(2) ? random.bytes(random.size(50_000)) : bendBytes(hello, random, hello)
  return random.weighted([
    [6, () => bendBytes(hello, random, random.pick(sources.hellos))],
    [1, () => random.bytes(random.size(20_000))],
    [1, () => Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')],
    // Records of every type, of a length that is or is not there.
    [
      2,
      () =>
        Buffer.concat([
          Buffer.of(random.between(19, 25), 3, random.int(5), random.int(70), random.int(256)),
          random.bytes(random.size(20_000)),
        ]),
    ],
    [1, () => random.pick(sources.captures).client],
  ])()
}

function http2Bytes(random: Random, { captures, authorities }: Sources, isServer: boolean): Buffer {
  const side = isServer ? 'server' : 'client'
  const capture = random.pick(captures)[side]
  const other = random.pick(captures)[side]
  const framed = () =>
    wireBytes(bendFrames(parseWire(capture), { random, other: parseWire(other), authorities, isServer }))
  return random.weighted([
    [7, framed],
    [2, () => bendBytes(capture, random, other)],
    [2, () => bendBytes(framed(), random, other)],
  ])()
}

/** As it is kept in a file. */
export function caseToJson({ pieces, ...rest }: Case): object {
  return { ...rest, pieces: pieces.map(piece => piece.toString('base64')) }
}

/** Reads what `caseToJson` gave. Throws `TypeError` when it is something else. */
export function caseFromJson(json: unknown): Case {
  const { seed, number, kind, pieces, ending, way } = json as Record<keyof Case, unknown>
  const isCase =
    typeof seed === 'number' &&
    typeof number === 'number' &&
    typeof way === 'number' &&
    ['to-server', 'to-client', 'to-tls', 'to-capture'].includes(kind as string) &&
    ['end', 'quiet', 'reset', 'leave'].includes(ending as string) &&
    Array.isArray(pieces) &&
    pieces.every(piece => typeof piece === 'string')
  if (!isCase) throw new TypeError('not a case')
  return {
    seed,
    number,
    way,
    kind: kind as Kind,
    ending: ending as Ending,
    pieces: pieces.map(piece => Buffer.from(piece, 'base64')),
  }
}
