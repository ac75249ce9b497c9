/** Certificate requests, good ones and every kind of bad one. */
import type { webcrypto } from 'node:crypto'
import 'reflect-metadata'
import * as x509 from '@peculiar/x509'

export { x509 }

export const P256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const

export interface CsrShape {
  readonly names?: x509.JsonGeneralNames
  readonly subject?: string
  readonly extensions?: readonly x509.Extension[]
  readonly attributes?: readonly x509.Attribute[]
  readonly algorithm?: { readonly name: string; readonly namedCurve?: string; readonly hash: string }
  readonly keys?: webcrypto.CryptoKeyPair
}

export function uri(identity: string): x509.JsonGeneralNames {
  return [{ type: 'url', value: identity }]
}

/** PEM of a request for the identity, changed as `shape` says. */
export async function makeCsr(identity: string, shape: CsrShape = {}): Promise<string> {
  const algorithm = shape.algorithm ?? P256
  const keys = shape.keys ?? (await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']))
  const names = shape.names ?? uri(identity)
  const csr = await x509.Pkcs10CertificateRequestGenerator.create(
    {
      name: shape.subject ?? '',
      keys,
      signingAlgorithm: algorithm,
      extensions: [
        ...(names.length > 0 ? [new x509.SubjectAlternativeNameExtension(names, true)] : []),
        ...(shape.extensions ?? []),
      ],
      attributes: [...(shape.attributes ?? [])],
    },
    crypto,
  )
  return csr.toString('pem')
}

/** The PEM of these bytes as a request. */
export function pemOf(der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  return `-----BEGIN CERTIFICATE REQUEST-----\n${lines.join('\n')}\n-----END CERTIFICATE REQUEST-----\n`
}

export function derOf(pem: string): Buffer {
  return Buffer.from(pem.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64')
}
