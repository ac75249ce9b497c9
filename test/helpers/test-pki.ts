/** Roots, intermediates and certificates for tests, made with an X.509 library that the agent itself does not use. */
import type { webcrypto } from 'node:crypto'
import 'reflect-metadata'
import * as x509 from '@peculiar/x509'

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const DAY_MS = 86_400_000

x509.cryptoProvider.set(crypto)

export interface Authority {
  readonly certificate: x509.X509Certificate
  readonly keys: webcrypto.CryptoKeyPair
  readonly pem: string
}

export interface LeafOptions {
  identity: string
  notBeforeMs?: number
  notAfterMs?: number
  isCa?: boolean
  /** More names beside the identity. */
  names?: x509.JsonGeneralNames
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify'])
}

/** A self-signed root. */
export async function createRoot(name: string): Promise<Authority> {
  const keys = await newKeys()
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: `CN=${name}`,
    keys,
    signingAlgorithm: ALGORITHM,
    notBefore: new Date(Date.now() - DAY_MS),
    notAfter: new Date(Date.now() + 3650 * DAY_MS),
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
    ],
  })
  return { certificate, keys, pem: pem(certificate) }
}

/** A CA below another; with `keys`, another certificate for a CA that exists (a cross-signature). */
export async function createIntermediate(
  parent: Authority,
  name: string,
  keys?: webcrypto.CryptoKeyPair,
  notAfterMs = Date.now() + 365 * DAY_MS,
): Promise<Authority> {
  const own = keys ?? (await newKeys())
  const certificate = await x509.X509CertificateGenerator.create({
    subject: `CN=${name}`,
    issuer: parent.certificate.subject,
    publicKey: own.publicKey,
    signingKey: parent.keys.privateKey,
    signingAlgorithm: ALGORITHM,
    notBefore: new Date(Date.now() - DAY_MS),
    notAfter: new Date(notAfterMs),
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
    ],
  })
  return { certificate, keys: own, pem: pem(certificate) }
}

/** A workload's certificate for a public key (SubjectPublicKeyInfo, DER). */
export async function issueLeaf(
  issuer: Authority,
  spki: Uint8Array<ArrayBuffer> | ArrayBuffer,
  options: LeafOptions,
): Promise<string> {
  const { identity, isCa = false, names = [] } = options
  const publicKey = await crypto.subtle.importKey('spki', spki, ALGORITHM, true, ['verify'])
  const certificate = await x509.X509CertificateGenerator.create({
    subject: '',
    issuer: issuer.certificate.subject,
    publicKey,
    signingKey: issuer.keys.privateKey,
    signingAlgorithm: ALGORITHM,
    notBefore: new Date(options.notBeforeMs ?? Date.now() - 120_000),
    notAfter: new Date(options.notAfterMs ?? Date.now() + DAY_MS),
    extensions: [
      new x509.BasicConstraintsExtension(isCa, undefined, true),
      new x509.SubjectAlternativeNameExtension([{ type: 'url', value: identity }, ...names], true),
    ],
  })
  return pem(certificate)
}

/** Key and certificate of a server for `localhost` and 127.0.0.1, PEM. */
export async function issueServer(issuer: Authority): Promise<{ key: string; cert: string }> {
  const keys = await newKeys()
  const certificate = await x509.X509CertificateGenerator.create({
    subject: 'CN=localhost',
    issuer: issuer.certificate.subject,
    publicKey: keys.publicKey,
    signingKey: issuer.keys.privateKey,
    signingAlgorithm: ALGORITHM,
    notBefore: new Date(Date.now() - DAY_MS),
    notAfter: new Date(Date.now() + DAY_MS),
    extensions: [
      new x509.SubjectAlternativeNameExtension([
        { type: 'dns', value: 'localhost' },
        { type: 'ip', value: '127.0.0.1' },
      ]),
    ],
  })
  const key = await crypto.subtle.exportKey('pkcs8', keys.privateKey)
  return { key: x509.PemConverter.encode(key, 'PRIVATE KEY'), cert: pem(certificate) }
}

/** The public key of a certificate request, DER, once its signature is checked. */
export async function requestKey(csr: string): Promise<ArrayBuffer> {
  const request = new x509.Pkcs10CertificateRequest(csr)
  if (!(await request.verify())) throw new Error('the signature of the request is wrong')
  return request.publicKey.rawData
}

function pem(certificate: x509.X509Certificate): string {
  return `${certificate.toString('pem')}\n`
}
