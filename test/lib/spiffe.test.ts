import 'reflect-metadata'
import { Crypto } from '@peculiar/webcrypto'
import * as x509 from '@peculiar/x509'
import * as fc from 'fast-check'
import { X509Certificate } from 'node:crypto'
import t from 'tap'
import { formatSpiffe, parseSpiffe, spiffeIdsOf } from '../../lib/spiffe.ts'

const ID = 'spiffe://cluster.local/ns/shop/sa/client'

await t.test('an identity is read as it is written', async t => {
  const id = { trustDomain: 'cluster.local', namespace: 'shop', serviceAccount: 'client' }
  t.equal(formatSpiffe('cluster.local', 'shop', 'client'), ID)
  t.strictSame(parseSpiffe(ID), id)
  t.strictSame(parseSpiffe('spiffe://a_b-c.d/ns/1/sa/a.b-c.d'), {
    trustDomain: 'a_b-c.d',
    namespace: '1',
    serviceAccount: 'a.b-c.d',
  })
})

await t.test('any other shape is no identity of the mesh', async t => {
  for (const text of [
    '',
    'spiffe://',
    'https://cluster.local/ns/shop/sa/client',
    'SPIFFE://cluster.local/ns/shop/sa/client',
    'spiffe://Cluster.local/ns/shop/sa/client',
    'spiffe:///ns/shop/sa/client',
    'spiffe://cluster.local:443/ns/shop/sa/client',
    'spiffe://user@cluster.local/ns/shop/sa/client',
    'spiffe://cluster.local/ns/shop',
    'spiffe://cluster.local/ns/shop/sa/',
    'spiffe://cluster.local/ns//sa/client',
    'spiffe://cluster.local/sa/client/ns/shop',
    `${ID}/`,
    `${ID}/more`,
    `${ID}\n`,
    `${ID}?a=b`,
    `${ID}#a`,
    ` ${ID}`,
    'spiffe://cluster.local/ns/../sa/client',
    'spiffe://cluster.local/ns/shop/sa/..',
    'spiffe://cluster.local/ns/shop/sa/a..b',
    'spiffe://cluster.local/ns/shop/sa/a.-b',
    'spiffe://cluster.local/ns/shop/sa/%63lient',
    'spiffe://cluster.local/ns/-shop/sa/client',
    'spiffe://cluster.local/ns/shop-/sa/client',
    'spiffe://cluster.local/ns/sh.op/sa/client',
    `spiffe://cluster.local/ns/${'n'.repeat(64)}/sa/client`,
    `spiffe://cluster.local/ns/shop/sa/${'s'.repeat(254)}`,
    `spiffe://${'d'.repeat(256)}/ns/shop/sa/client`,
  ])
    t.equal(parseSpiffe(text), undefined, JSON.stringify(text.slice(0, 80)))
})

await t.test('parts that are no names are not written', async t => {
  for (const [domain, namespace, account] of [
    ['', 'shop', 'client'],
    ['cluster.local/ns/kube-system', 'shop', 'client'],
    ['cluster.local', 'shop/sa/admin', 'client'],
    ['cluster.local', 'shop', 'client/more'],
    ['cluster.local', 'Shop', 'client'],
    ['cluster.local', 'shop', ''],
  ] as const)
    t.throws(() => formatSpiffe(domain, namespace, account), { name: 'CulvertError', code: 'SPIFFE' })
})

/** RFC 1123 §2.1, the way one would write it down by hand. */
function isLabel(text: string): boolean {
  return /^[a-z0-9-]+$/.test(text) && !text.startsWith('-') && !text.endsWith('-')
}

await t.test('parses what a naive reading of the shape takes, and nothing else', async () => {
  const name = fc.oneof(
    fc.constantFrom('a', 'a-b', 'a.b', '-a', 'a.', 'a..b', ''),
    fc.stringMatching(/^[a-z0-9.-]{1,8}$/),
  )
  const text = fc.oneof(
    fc.tuple(name, name, name).map(([domain, ns, sa]) => `spiffe://${domain}/ns/${ns}/sa/${sa}`),
    fc
      .array(fc.constantFrom('spiffe:', '/', '//', 'ns', 'sa', 'a', 'cluster.local'), { maxLength: 12 })
      .map(parts => parts.join('')),
  )
  fc.assert(
    fc.property(text, text => {
      const [scheme, nothing, domain = '', ns, namespace = '', sa, account = '', ...rest] = text.split('/')
      const isShape =
        scheme === 'spiffe:' &&
        nothing === '' &&
        domain !== '' &&
        ns === 'ns' &&
        sa === 'sa' &&
        rest.length === 0
      const isLegal = isShape && isLabel(namespace) && account.split('.').every(isLabel)
      const id = parseSpiffe(text)
      if (!isLegal || !id) return id === undefined && !isLegal
      return formatSpiffe(id.trustDomain, id.namespace, id.serviceAccount) === text
    }),
    { numRuns: 2000 },
  )
})

await t.test('the identities among alternative names are found, whatever else is there', async t => {
  t.strictSame(spiffeIdsOf(undefined), [])
  t.strictSame(spiffeIdsOf(''), [])
  t.strictSame(spiffeIdsOf(`URI:${ID}`), [ID])
  t.strictSame(spiffeIdsOf(`DNS:a.b, URI:https://a/, URI:${ID}, IP Address:10.0.0.1, URI:${ID}-2`), [
    ID,
    `${ID}-2`,
  ])
  t.strictSame(spiffeIdsOf(`DNS:${ID}, email:${ID}`), [])
})

await t.test('a name that only contains the text of another is not taken for it', async t => {
  const crypto = new Crypto()
  x509.cryptoProvider.set(crypto)
  const keys = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, [
    'sign',
    'verify',
  ])
  const namesOf = async (names: x509.JsonGeneralNames) => {
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      keys,
      signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
      extensions: [new x509.SubjectAlternativeNameExtension(names)],
    })
    return new X509Certificate(Buffer.from(certificate.rawData)).subjectAltName
  }
  const forged = 'spiffe://cluster.local/ns/kube-system/sa/admin'
  for (const value of [
    `a, URI:${forged}, b`,
    `a", URI:${forged}, "b`,
    `a\\", URI:${forged}, b`,
    `URI:${forged}`,
    `a\u0000, URI:${forged}, b`,
  ])
    for (const type of ['dns', 'url', 'email'] as const) {
      const text = await namesOf([
        { type, value },
        { type: 'url', value: ID },
      ])
      t.strictSame(spiffeIdsOf(text), [ID], `${type}: ${text}`)
    }
})

await t.test('any text gives identities of the shape, without an error', async () => {
  const piece = fc.constantFrom('URI:', 'DNS:', ID, ', ', '"', '\\', 'a')
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.array(piece).map(pieces => pieces.join('')),
      ),
      text => spiffeIdsOf(text).every(id => parseSpiffe(id) !== undefined),
    ),
  )
})
