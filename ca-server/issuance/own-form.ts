/**
 * Recognises the certificate request of Culvert's own agent, which always has the same form: key and name are taken from
 * where they must be, the request is written again with them, and only if every byte is the same and the signature is the
 * key's it is one. Nothing is parsed, so there is nothing to get wrong; whatever is not recognised is for the library.
 */
import { createPublicKey, verify } from 'node:crypto'
import { bitString, sequence } from '../../lib/pki/der.ts'
import { ECDSA_WITH_SHA256, requestInfo } from '../../lib/pki/request.ts'

/** SubjectPublicKeyInfo of a P-256 key up to its point (RFC 5480 §2): 26 bytes, then 0x04 and two numbers of 32. */
const P256_BEGINNING = Buffer.from('3059301306072a8648ce3d020106082a8648ce3d030107034200', 'hex')
const P256_BYTES = P256_BEGINNING.length + 65
/** Version and empty subject come before it. */
const BEFORE_KEY = Buffer.from('0201003000', 'hex')
const SPIFFE_ID = /spiffe:\/\/[\x21-\x7e]+$/

export interface RecognisedRequest {
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: ArrayBuffer
  readonly uri: string
}

/** Undefined when it is any other request, or not signed by the key in it. */
export function recognise(request: Uint8Array): RecognisedRequest | undefined {
  const der = Buffer.from(request)
  const keyAt = der.indexOf(P256_BEGINNING)
  const signatureAt = der.lastIndexOf(ECDSA_WITH_SHA256)
  if (keyAt < BEFORE_KEY.length || signatureAt < keyAt) return undefined
  const publicKey = Uint8Array.from(der.subarray(keyAt, keyAt + P256_BYTES))
  // The name is the last of what is signed.
  const uri = SPIFFE_ID.exec(der.toString('latin1', keyAt + P256_BYTES, signatureAt))?.[0]
  if (uri === undefined) return undefined
  const info = requestInfo(publicKey, uri)
  const signature = signatureFrom(der.subarray(signatureAt + ECDSA_WITH_SHA256.length))
  if (!signature || !sequence(info, ECDSA_WITH_SHA256, bitString(signature)).equals(der)) return undefined
  try {
    const key = createPublicKey({ key: Buffer.from(publicKey), format: 'der', type: 'spki' })
    return verify('sha256', info, { key, dsaEncoding: 'der' }, signature)
      ? { publicKey: publicKey.buffer, uri }
      : undefined
  } catch {
    return undefined // no point of the curve
  }
}

/** What a bit string of less than 128 bytes holds. */
function signatureFrom(bits: Buffer): Buffer | undefined {
  return bits.length > 3 && bits.length < 0x80 ? bits.subarray(3) : undefined
}
