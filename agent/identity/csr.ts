/**
 * Makes a key and the request for its certificate. The key is P-256, new for every request, and exists only as the text
 * that is handed back. The request is PKCS #10 (RFC 2986) with an empty subject and one critical subject alternative
 * name, the SPIFFE ID: what the certificate services of the Istio family expect. It is written by hand because an X.509
 * library costs more memory than the rest of the agent's identity code together.
 */
import { generateKeyPair, sign } from 'node:crypto'
import { promisify } from 'node:util'
import {
  bitString,
  boolean,
  contextConstructed,
  contextPrimitive,
  integer,
  octetString,
  oid,
  pem,
  sequence,
  setOf,
} from '../../lib/pki/der.ts'

const generate = promisify(generateKeyPair)

const EXTENSION_REQUEST = oid('1.2.840.113549.1.9.14') // RFC 2985 §5.4.2
const SUBJECT_ALT_NAME = oid('2.5.29.17') // RFC 5280 §4.2.1.6
const ECDSA_WITH_SHA256 = sequence(oid('1.2.840.10045.4.3.2')) // RFC 5758 §3.2
const URI_NAME = 6 // GeneralName, RFC 5280 §4.2.1.6

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

/** CertificationRequestInfo (RFC 2986 §4.1): what is signed. */
function requestInfo(publicKey: Uint8Array, identity: string): Buffer {
  const names = sequence(contextPrimitive(URI_NAME, Buffer.from(identity, 'ascii')))
  const critical = boolean(true) // an empty subject demands it (RFC 5280 §4.2.1.6)
  const extensions = sequence(sequence(SUBJECT_ALT_NAME, critical, octetString(names)))
  const attribute = sequence(EXTENSION_REQUEST, setOf(extensions))
  const version = integer(0)
  const emptySubject = sequence()
  return sequence(version, emptySubject, publicKey, contextConstructed(0, attribute))
}

function signed(data: Buffer, key: string): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    sign('sha256', data, { key, dsaEncoding: 'der' }, (err, signature) =>
      err ? reject(err) : resolve(signature),
    )
  })
}
