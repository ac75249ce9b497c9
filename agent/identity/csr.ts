/**
 * Makes a key and the request for its certificate. The key is P-256, new for every request, and exists only as the text
 * that is handed back. The request is PKCS #10 (RFC 2986) with an empty subject and one critical subject alternative
 * name, the SPIFFE ID: what the certificate services of the Istio family expect. It is written by hand because an X.509
 * library costs more memory than the rest of the agent's identity code together.
 */
import { generateKeyPair, sign } from 'node:crypto'
import { promisify } from 'node:util'
import { bitString, pem, sequence } from '../../lib/pki/der.ts'
import { ECDSA_WITH_SHA256, requestInfo } from '../../lib/pki/request.ts'

const generate = promisify(generateKeyPair)

export interface KeyAndRequest {
  /** PKCS #8 PEM. */
  readonly key: string
  /** SubjectPublicKeyInfo, DER: what the certificate must hold. */
  readonly publicKey: Buffer
  /** PKCS #10 PEM. */
  readonly csr: string
}

/** A new P-256 key and a request for `identity` (a SPIFFE ID), signed with it. Both run off the event loop. */
export async function createKeyAndRequest(identity: string): Promise<KeyAndRequest> {
  const { privateKey, publicKey } = await generate('ec', {
    namedCurve: 'P-256',
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'der' },
  })
  const info = requestInfo(publicKey, identity)
  const signature = await signed(info, privateKey)
  const request = sequence(info, ECDSA_WITH_SHA256, bitString(signature))
  return { key: privateKey, publicKey, csr: pem('CERTIFICATE REQUEST', request) }
}

function signed(data: Buffer, key: string): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    sign('sha256', data, { key, dsaEncoding: 'der' }, (err, signature) =>
      err ? reject(err) : resolve(signature),
    )
  })
}
