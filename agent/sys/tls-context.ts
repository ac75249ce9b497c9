/**
 * What all TLS connections of one certificate share (SSL_CTX): TLS 1.3 only, mutual, ALPN `h2`, no resumption. OpenSSL
 * counts who uses it; ours is given back when the object is collected, so that nobody can hold one that is gone.
 */
import { X509Certificate } from 'node:crypto'
import { CulvertError } from '../../lib/errors.ts'
import { alpnH2Callback, openssl, SSL, type Pointer } from './openssl.ts'

export interface TlsMaterial {
  /** PKCS #8 PEM. */
  readonly key: string
  /** PEM, leaf first. */
  readonly chain: string
  /** PEM roots that peers must chain to. */
  readonly roots: string
}

/**
 * The first that both know, as the client prefers; 128 bits cost a quarter less, and ztunnel, which offers 256 first,
 * takes either.
 */
const CIPHERS = 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384'
/** The first that both know is used: hybrid post-quantum where the peer has it. */
const GROUPS = 'X25519MLKEM768:X25519:P-256'
const ALPN_H2 = Buffer.from('\x02h2')
/** Records read in one system call. */
const READ_BUFFER = 144 * 1024

const collected = new FinalizationRegistry<Pointer>(context => openssl.SSL_CTX_free(context))

export class TlsContext {
  readonly pointer: Pointer

  /** Throws `PKI` when key and certificate do not belong together or cannot be read. */
  constructor(material: TlsMaterial) {
    openssl.ERR_clear_error()
    const context = openssl.SSL_CTX_new(openssl.TLS_method())
    if (context === 0) throw new CulvertError('PKI', `no TLS context: ${opensslReason()}`)
    this.pointer = context
    collected.register(this, context)
    must(openssl.SSL_CTX_ctrl(context, SSL.ctrlMinVersion, SSL.tls13, 0))
    must(openssl.SSL_CTX_ctrl(context, SSL.ctrlMaxVersion, SSL.tls13, 0))
    must(openssl.SSL_CTX_set_ciphersuites(context, CIPHERS))
    must(openssl.SSL_CTX_ctrl_text(context, SSL.ctrlGroups, 0, GROUPS))
    must(openssl.SSL_CTX_set_num_tickets(context, 0))
    // Brotli at its highest level would take milliseconds and half a megabyte for each handshake, to save some hundred
    // bytes; and what a peer has compressed would be unpacked before it is known who it is.
    openssl.SSL_CTX_set_options(context, SSL.noCertificateCompression)
    openssl.SSL_CTX_ctrl(context, SSL.ctrlSessionCache, 0, 0)
    openssl.SSL_CTX_ctrl(context, SSL.ctrlMode, SSL.modeMovingWriteBuffer, 0)
    openssl.SSL_CTX_ctrl(context, SSL.ctrlReadAhead, 1, 0)
    openssl.SSL_CTX_set_default_read_buffer_len(context, READ_BUFFER)
    openssl.SSL_CTX_set_verify(context, SSL.verifyPeer | SSL.verifyMustHave, null)
    if (openssl.SSL_CTX_set_alpn_protos(context, ALPN_H2, ALPN_H2.length) !== 0) must(0) // 0 is success
    openssl.SSL_CTX_set_alpn_select_cb(context, alpnH2Callback(), null)
    this.#certify(material)
  }

  #certify({ key, chain, roots }: TlsMaterial): void {
    const context = this.pointer
    const certificates = certificatesOf(chain)
    const trusted = certificatesOf(roots)
    let privateKey = 0
    try {
      const [leaf, ...intermediates] = certificates
      must(openssl.SSL_CTX_use_certificate(context, leaf ?? 0))
      for (const each of intermediates) must(openssl.SSL_CTX_ctrl(context, SSL.ctrlExtraChain, 1, each))
      const store = openssl.SSL_CTX_get_cert_store(context)
      for (const root of trusted) must(openssl.X509_STORE_add_cert(store, root))
      privateKey = withBio(Buffer.from(key), bio => openssl.PEM_read_bio_PrivateKey(bio, null, null, null))
      must(openssl.SSL_CTX_use_PrivateKey(context, privateKey))
      must(openssl.SSL_CTX_check_private_key(context))
    } finally {
      for (const each of [...certificates, ...trusted]) openssl.X509_free(each)
      openssl.EVP_PKEY_free(privateKey) // 0 is fine
    }
  }
}

/** The certificates of a PEM text, the caller's to free. Throws `PKI` when there are none, or one cannot be read. */
function certificatesOf(pem: string): Pointer[] {
  const found: Pointer[] = []
  withBio(Buffer.from(pem), bio => {
    for (;;) {
      const certificate = openssl.PEM_read_bio_X509(bio, null, null, null)
      if (certificate === 0) break
      found.push(certificate)
    }
  })
  openssl.ERR_clear_error() // the end of the text is told as an error
  const expected = pem.match(/-----BEGIN CERTIFICATE-----/g)?.length ?? 0
  if (found.length > 0 && found.length === expected) return found
  for (const each of found) openssl.X509_free(each)
  throw new CulvertError('PKI', 'certificate and key cannot be used for TLS', {
    cause: new Error(`${expected} certificates in the text, ${found.length} could be read`),
  })
}

function withBio<T>(bytes: Buffer, use: (bio: Pointer) => T): T {
  const bio = openssl.BIO_new_mem_buf(bytes, bytes.length)
  try {
    return use(bio)
  } finally {
    openssl.BIO_free(bio)
    bytes.fill(0)
  }
}

function must(result: number): void {
  if (result > 0) return
  throw new CulvertError('PKI', 'certificate and key cannot be used for TLS', {
    cause: new Error(opensslReason()),
  })
}

/** What OpenSSL says of its last failures on this thread, the first of them; forgets them. */
export function opensslReason(): string {
  const error = openssl.ERR_get_error()
  openssl.ERR_clear_error()
  return error === 0 ? 'no reason given' : (openssl.ERR_reason_error_string(error) ?? `error ${error}`)
}

/** A certificate of OpenSSL's as Node's. Frees the former. */
export function takeCertificate(certificate: Pointer): X509Certificate {
  const bio = openssl.BIO_new(openssl.BIO_s_mem())
  try {
    openssl.i2d_X509_bio(bio, certificate)
    const length = openssl.BIO_read(bio, der, der.length)
    return new X509Certificate(der.subarray(0, Math.max(0, length)))
  } finally {
    openssl.BIO_free(bio)
    openssl.X509_free(certificate)
  }
}

/** OpenSSL takes a chain of at most 100 KiB from a peer (SSL_CTX_set_max_cert_list(3)). */
const MAX_CERTIFICATE = 100 * 1024
// Reused: what is read from it is copied, and each thread has its own copy of this module.
const der = Buffer.allocUnsafeSlow(MAX_CERTIFICATE)
