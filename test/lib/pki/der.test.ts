import { execFileSync } from 'node:child_process'
import * as fc from 'fast-check'
import t from 'tap'
import {
  bitString,
  boolean,
  contextConstructed,
  contextPrimitive,
  integer,
  integerOf,
  octetString,
  oid,
  pem,
  sequence,
  setOf,
  time,
  utf8String,
} from '../../../lib/pki/der.ts'

await t.test('the encodings of X.690 and of well-known identifiers come out byte by byte', async t => {
  t.equal(integer(0).toString('hex'), '020100')
  t.equal(integer(127).toString('hex'), '02017f')
  t.equal(integer(128).toString('hex'), '02020080')
  t.equal(integer(65_537).toString('hex'), '0203010001')
  t.equal(boolean(true).toString('hex'), '0101ff')
  t.equal(oid('1.2.840.10045.4.3.2').toString('hex'), '06082a8648ce3d040302')
  t.equal(oid('2.5.29.17').toString('hex'), '0603551d11')
  t.equal(oid('2.999.3').toString('hex'), '0603883703', 'X.690 §8.19.5')
  t.equal(sequence().toString('hex'), '3000')
  t.equal(bitString(Buffer.of(0xaa)).toString('hex'), '030200aa')
  t.equal(contextPrimitive(6, Buffer.from('a')).toString('hex'), '860161')
  t.equal(contextConstructed(0, boolean(false)).toString('hex'), 'a003010100')
  t.equal(setOf(integer(2), integer(1)).toString('hex'), '3106020101020102', 'a set is in order')
})

await t.test('numbers from bytes are as short as they can be, and never negative', t => {
  t.equal(integerOf(Buffer.of(0)).toString('hex'), '020100')
  t.equal(integerOf(Buffer.of(0, 0, 5)).toString('hex'), '020105')
  t.equal(integerOf(Buffer.of(0, 0x80)).toString('hex'), '02020080')
  t.equal(integerOf(Buffer.of(0xff, 0)).toString('hex'), '020300ff00')
  t.end()
})

await t.test('times change their form in 2050', t => {
  t.equal(time(new Date('2026-11-24T03:04:05.900Z')).subarray(2).toString(), '261124030405Z')
  t.equal(time(new Date('2049-12-31T23:59:59Z'))[0], 0x17)
  t.equal(time(new Date('2050-01-01T00:00:00Z')).toString('latin1'), '\x18\x0f20500101000000Z')
  t.end()
})

await t.test('a length is written in its shortest form', async t => {
  for (const [length, head] of [
    [127, '047f'],
    [128, '048180'],
    [255, '0481ff'],
    [256, '04820100'],
    [70_000, '0483011170'],
  ] as const)
    t.equal(
      octetString(Buffer.alloc(length))
        .subarray(0, head.length / 2)
        .toString('hex'),
      head,
    )
})

await t.test('what is not an object identifier or not a number is refused by name', async t => {
  for (const text of ['', '1', '3.1', '1.40', '1.2.', 'x.y', '1.02', '1..2'])
    t.throws(() => oid(text), { code: 'PKI' }, text)
  t.throws(() => integer(-1), { code: 'PKI' })
  t.throws(() => integer(1.5), { code: 'PKI' })
})

await t.test('openssl reads back every tree that can be built', async () => {
  const leaf = fc.oneof(
    fc.nat().map(value => integer(value)),
    fc.maxSafeNat().map(value => integer(value)),
    fc.boolean().map(boolean),
    fc.uint8Array({ maxLength: 300 }).map(octetString),
    fc.string().map(utf8String),
    fc
      .array(fc.maxSafeNat(), { minLength: 1, maxLength: 6 })
      .map(arcs => oid(`2.999.${arcs.map(arc => arc % 1e15).join('.')}`)),
  )
  const { tree } = fc.letrec<{ tree: Buffer }>(tie => ({
    tree: fc.oneof(
      { depthSize: 'small' },
      leaf,
      fc.array(tie('tree'), { maxLength: 4 }).map(parts => sequence(...parts)),
      fc.array(tie('tree'), { maxLength: 4 }).map(parts => contextConstructed(1, ...parts)),
    ),
  }))
  fc.assert(
    fc.property(tree, built => {
      execFileSync('openssl', ['asn1parse', '-inform', 'DER'], {
        input: sequence(built),
        stdio: ['pipe', 'ignore', 'pipe'],
      })
    }),
    { numRuns: 40 },
  )
})

await t.test('PEM has lines of 64 characters and gives the bytes back', async t => {
  const bytes = Buffer.from(Array.from({ length: 100 }, (_, at) => at))
  const text = pem('THING', bytes)
  t.match(text, /^-----BEGIN THING-----\n[A-Za-z0-9+/]{64}\n/)
  t.ok(text.endsWith('-----END THING-----\n'))
  t.strictSame(Buffer.from(text.split('\n').slice(1, -2).join(''), 'base64'), bytes)
})
