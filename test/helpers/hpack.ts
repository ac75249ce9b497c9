/** What the HPACK tests share: hex, whole lists, and lists of the kind tunnels carry. */
import * as fc from 'fast-check'
import type { HpackDecoder } from '../../agent/hbone/hpack/decoder.ts'

export type HeaderList = readonly (readonly [name: string, value: string])[]

export function fromHex(hex: string): Buffer {
  return Buffer.from(hex.replaceAll(/\s/g, ''), 'hex')
}

export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}

export function decodeList(decoder: HpackDecoder, block: Uint8Array): [string, string][] {
  const list: [string, string][] = []
  decoder.decode(block, (name, value) => list.push([name, value]))
  return list
}

/** Lists that repeat themselves (few names, few values) and some that never do. */
export function headerLists(): fc.Arbitrary<HeaderList> {
  const name = fc.oneof(
    fc.constantFrom(
      ':method',
      ':authority',
      ':status',
      ':path',
      'baggage',
      'forwarded',
      'traceparent',
      'x-a',
      'te',
      'connection',
    ),
    fc.string({ unit: latin1(), maxLength: 12 }),
  )
  const value = fc.oneof(
    fc.constantFrom(
      'CONNECT',
      '10.0.0.1:80',
      '10.0.0.2:80',
      '200',
      '',
      'trailers',
      'k8s.namespace.name=shop',
    ),
    fc.string({ unit: latin1(), maxLength: 40 }),
    fc.string({ unit: latin1(), minLength: 100, maxLength: 300 }),
  )
  return fc.array(fc.tuple(name, value), { maxLength: 12 })
}

function latin1(): fc.Arbitrary<string> {
  return fc.integer({ min: 0, max: 255 }).map(code => String.fromCharCode(code))
}
