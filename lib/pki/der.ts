/**
 * Writes the few DER types that certificates and requests for them need (ITU-T X.690 §8, §10). It only writes: whatever
 * comes from outside is read by OpenSSL.
 */
import { CulvertError } from '../errors.ts'

const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utf8: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
} as const
const SEQUENCE = 0x30
const SET = 0x31

/** One element: tag, length in its shortest form, content. */
function element(tag: number, ...content: readonly Uint8Array[]): Buffer {
  const length = content.reduce((sum, part) => sum + part.length, 0)
  return Buffer.concat([header(tag, length), ...content])
}

function header(tag: number, length: number): Buffer {
  if (length < 0x80) return Buffer.of(tag, length)
  const bytes: number[] = []
  for (let left = length; left > 0; left = Math.floor(left / 256)) bytes.unshift(left % 256)
  return Buffer.of(tag, 0x80 | bytes.length, ...bytes)
}

export function sequence(...parts: readonly Uint8Array[]): Buffer {
  return element(SEQUENCE, ...parts)
}

/** SET OF: the parts are put into ascending order, as DER wants them (X.690 §11.6). */
export function setOf(...parts: readonly Uint8Array[]): Buffer {
  return element(SET, ...[...parts].sort((a, b) => Buffer.compare(a, b)))
}

export function boolean(value: boolean): Buffer {
  return element(TAG.boolean, Buffer.of(value ? 0xff : 0x00))
}

/** A whole number from 0 to 2^53 - 1. */
export function integer(value: number): Buffer {
  if (!Number.isSafeInteger(value) || value < 0)
    throw new CulvertError('PKI', `not a number that DER is written for here: ${value}`)
  let hex = value.toString(16)
  if (hex.length % 2 === 1) hex = `0${hex}`
  return integerOf(Buffer.from(hex, 'hex'))
}

/** A whole number that is not negative, from its bytes, the highest first, at least one. */
export function integerOf(bytes: Uint8Array): Buffer {
  const first = bytes.findIndex((byte, at) => byte !== 0 || at === bytes.length - 1)
  const shortest = bytes.subarray(first)
  // A leading one bit would make it negative.
  return shortest[0]! < 0x80 ? element(TAG.integer, shortest) : element(TAG.integer, Buffer.of(0), shortest)
}

/** A time of a certificate, whole seconds: UTCTime up to 2049, GeneralizedTime from then on (RFC 5280 §4.1.2.5). */
export function time(date: Date): Buffer {
  const digits = `${date.toISOString().slice(0, 19).replaceAll(/\D/g, '')}Z`
  return date.getUTCFullYear() < 2050
    ? element(TAG.utcTime, Buffer.from(digits.slice(2)))
    : element(TAG.generalizedTime, Buffer.from(digits))
}

/** Whole bytes, no unused bits. */
export function bitString(bytes: Uint8Array): Buffer {
  return element(TAG.bitString, Buffer.of(0), bytes)
}

export function octetString(bytes: Uint8Array): Buffer {
  return element(TAG.octetString, bytes)
}

export function utf8String(text: string): Buffer {
  return element(TAG.utf8, Buffer.from(text))
}

/** `1.2.840.10045.4.3.2`. Throws `PKI` when the text is not an object identifier. */
export function oid(text: string): Buffer {
  const arcs = /^[0-2](\.(0|[1-9]\d{0,14}))+$/.test(text) ? text.split('.').map(Number) : []
  const [first = 3, second = 0, ...rest] = arcs
  if (first > 2 || (first < 2 && second > 39))
    throw new CulvertError('PKI', `not an object identifier: '${text}'`)
  return element(TAG.oid, ...[first * 40 + second, ...rest].map(base128))
}

function base128(value: number): Buffer {
  const bytes = [value % 128]
  for (let left = Math.floor(value / 128); left > 0; left = Math.floor(left / 128))
    bytes.unshift(0x80 | (left % 128))
  return Buffer.from(bytes)
}

/** `[number] IMPLICIT` over a primitive type: the tag replaces the type's own. */
export function contextPrimitive(number: number, content: Uint8Array): Buffer {
  return element(0x80 | number, content)
}

/** `[number]` over a constructed type. */
export function contextConstructed(number: number, ...content: readonly Uint8Array[]): Buffer {
  return element(0xa0 | number, ...content)
}

/** PEM (RFC 7468), 64 characters a line. */
export function pem(label: string, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ''].join('\n')
}
