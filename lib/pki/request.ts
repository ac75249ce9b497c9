/**
 * The one form of certificate request that the agent writes (PKCS #10, RFC 2986): an empty subject and one critical subject
 * alternative name, the SPIFFE ID. Who knows key and name knows every byte of it: it can be recognised by writing it again.
 */
import {
  boolean,
  contextConstructed,
  contextPrimitive,
  integer,
  octetString,
  oid,
  sequence,
  setOf,
} from './der.ts'

const EXTENSION_REQUEST = oid('1.2.840.113549.1.9.14') // RFC 2985 §5.4.2
const SUBJECT_ALT_NAME = oid('2.5.29.17') // RFC 5280 §4.2.1.6
const URI_NAME = 6 // GeneralName, RFC 5280 §4.2.1.6

/** AlgorithmIdentifier of its signature (RFC 5758 §3.2). */
export const ECDSA_WITH_SHA256 = sequence(oid('1.2.840.10045.4.3.2'))

/** CertificationRequestInfo (RFC 2986 §4.1), which is what is signed, for a SubjectPublicKeyInfo in DER. */
export function requestInfo(publicKey: Uint8Array, identity: string): Buffer {
  const attribute = sequence(EXTENSION_REQUEST, setOf(sequence(uriExtension(identity))))
  const version = integer(0)
  const emptySubject = sequence()
  return sequence(version, emptySubject, publicKey, contextConstructed(0, attribute))
}

/** The extension that names one URI; critical, as an empty subject demands (RFC 5280 §4.2.1.6). */
export function uriExtension(uri: string): Buffer {
  const names = sequence(contextPrimitive(URI_NAME, Buffer.from(uri, 'ascii')))
  return sequence(SUBJECT_ALT_NAME, boolean(true), octetString(names))
}
