/**
 * Certificate requests from agents (PKCS #10, RFC 2986). Only two things are taken out of one: the public key,
 * after its holder has proved to have the private one, and the one SPIFFE URI that it names. Anything else that
 * a request carries is refused rather than dropped, so that nobody believes to have been given it.
 */
import {
  Pkcs10CertificateRequest,
  SubjectAlternativeNameExtension,
  type Attribute,
} from '../authority/x509.ts'
import type { Engine } from '../authority/engine.ts'
import type { SubjectKey } from '../authority/leaf.ts'
import { Refusal } from '../refusal.ts'
import { recognise } from './own-form.ts'

// A P-256 request with one SPIFFE URI has about 500 characters.
const MAX_PEM_CHARS = 8192
const EXTENSION_REQUEST = '1.2.840.113549.1.9.14' // PKCS #9, RFC 2985 §5.4.2
const SUBJECT_ALT_NAME = '2.5.29.17'

export interface VerifiedCsr {
  readonly publicKey: SubjectKey
  /** The one URI among its names; not yet checked to be a SPIFFE ID. */
  readonly uri: string
}

/** Reads and verifies a request in PEM. Throws `Refusal` (`csr-…`). */
export async function verifyCsr(pem: string, engine: Engine): Promise<VerifiedCsr> {
  if (pem.length > MAX_PEM_CHARS)
    throw new Refusal('csr-too-large', `the request has ${pem.length} characters, more than ${MAX_PEM_CHARS}`)
  const der = derFrom(pem)
  // What our own agent writes needs no reading; of everything else, and of all that is wrong, the library is the judge.
  const recognised = recognise(der)
  if (recognised) return { publicKey: { rawData: recognised.publicKey }, uri: recognised.uri }
  const csr = parse(der)
  const uri = onlyUri(csr)
  await verifyKey(csr, engine)
  return { publicKey: csr.publicKey, uri }
}

function derFrom(pem: string): Uint8Array<ArrayBuffer> {
  const match =
    /^\s*-----BEGIN (NEW )?CERTIFICATE REQUEST-----([A-Za-z0-9+/=\s]+)-----END \1?CERTIFICATE REQUEST-----\s*$/.exec(
      pem,
    )
  if (!match) throw new Refusal('csr-malformed', 'the request is not one PEM block of a certificate request')
  const der = new Uint8Array(Buffer.from(match[2]!, 'base64'))
  if (derLength(der) !== der.length)
    throw new Refusal('csr-malformed', `the request is not one DER sequence of ${der.length} bytes`)
  return der
}

function parse(der: Uint8Array<ArrayBuffer>): Pkcs10CertificateRequest {
  try {
    return new Pkcs10CertificateRequest(der)
  } catch (err) {
    throw new Refusal('csr-malformed', 'the request is not PKCS #10', { cause: err })
  }
}

/** Length of the sequence that the bytes begin with, header included; -1 when they begin with none (X.690 §8.1). */
function derLength(der: Uint8Array): number {
  const first = der[1]
  if (der[0] !== 0x30 || first === undefined) return -1
  if (first < 0x80) return 2 + first
  const count = first & 0x7f
  if (count === 0 || count > 3 || der.length < 2 + count) return -1
  let length = 0
  for (let at = 0; at < count; at++) length = (length << 8) | der[2 + at]!
  return 2 + count + length
}

function onlyUri(csr: Pkcs10CertificateRequest): string {
  const [attribute, ...otherAttributes] = attributesOf(csr)
  if (csr.subject !== '') throw new Refusal('csr-names', `the request names a subject ('${csr.subject}')`)
  if (!attribute) throw new Refusal('csr-names', 'the request names no identity')
  if (attribute.type !== EXTENSION_REQUEST || attribute.values.length !== 1 || otherAttributes.length > 0)
    throw new Refusal('csr-extensions', 'the request has attributes besides one extension request')
  const [extension, ...otherExtensions] = extensionsOf(csr)
  if (extension?.type !== SUBJECT_ALT_NAME || otherExtensions.length > 0)
    throw new Refusal('csr-extensions', 'the request has extensions besides one subject alternative name')
  if (!(extension instanceof SubjectAlternativeNameExtension))
    throw new Refusal('csr-malformed', "the request's names cannot be read")
  const [name, ...otherNames] = extension.names.items
  if (name?.type !== 'url' || otherNames.length > 0)
    throw new Refusal('csr-names', 'the request has names besides one URI')
  return name.value
}

// Getters of the library parse when they are asked.
function attributesOf(csr: Pkcs10CertificateRequest): Attribute[] {
  try {
    return csr.attributes
  } catch (err) {
    throw new Refusal('csr-malformed', "the request's attributes cannot be read", { cause: err })
  }
}

function extensionsOf(csr: Pkcs10CertificateRequest): Pkcs10CertificateRequest['extensions'] {
  try {
    return csr.extensions
  } catch (err) {
    throw new Refusal('csr-malformed', "the request's extensions cannot be read", { cause: err })
  }
}

async function verifyKey(csr: Pkcs10CertificateRequest, engine: Engine): Promise<void> {
  let isP256: boolean
  let isSha256: boolean
  try {
    const key = csr.publicKey.algorithm as { name: string; namedCurve?: string }
    isP256 = key.name === 'ECDSA' && key.namedCurve === 'P-256'
    const signature = csr.signatureAlgorithm as { name: string; hash?: { name: string } }
    isSha256 = signature.name === 'ECDSA' && signature.hash?.name === 'SHA-256'
  } catch (err) {
    throw new Refusal('csr-key', "the request's key or signature algorithm is not known", { cause: err })
  }
  if (!isP256) throw new Refusal('csr-key', "the request's key is not ECDSA on P-256")
  if (!isSha256) throw new Refusal('csr-signature', 'the request is not signed with ECDSA and SHA-256')
  try {
    if (await csr.verify(engine)) return
  } catch (err) {
    throw new Refusal('csr-key', "the request's key is not a point of its curve", { cause: err })
  }
  throw new Refusal('csr-signature', 'the request is not signed by the key it holds')
}
