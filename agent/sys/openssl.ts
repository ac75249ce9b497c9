/**
 * OpenSSL, by FFI: the copy that Node brings and whose symbols its binary exports for addons (Node's documentation of
 * addons, "Linking to libraries included with Node.js"). Pointers are numbers here; whoever makes an object frees it,
 * once, and nobody uses it after that: `tls-channel.ts` and `tls-context.ts` see to it, and nothing else may call this.
 */
import koffi from 'koffi'

export type Pointer = number
type Bytes = Uint8Array

const self = koffi.load(null)

export const openssl = {
  TLS_method: self.func('uint64_t TLS_method()') as () => Pointer,
  SSL_CTX_new: self.func('uint64_t SSL_CTX_new(uint64_t)') as (method: Pointer) => Pointer,
  SSL_CTX_free: self.func('void SSL_CTX_free(uint64_t)') as (context: Pointer) => void,
  SSL_CTX_ctrl: self.func('int64_t SSL_CTX_ctrl(uint64_t, int, int64_t, uint64_t)') as (
    context: Pointer,
    command: number,
    large: number,
    pointer: Pointer,
  ) => number,
  /** The same with text for the pointer. */
  SSL_CTX_ctrl_text: self.func('int64_t SSL_CTX_ctrl(uint64_t, int, int64_t, const char *)') as (
    context: Pointer,
    command: number,
    large: number,
    text: string,
  ) => number,
  SSL_CTX_set_options: self.func('uint64_t SSL_CTX_set_options(uint64_t, uint64_t)') as (
    context: Pointer,
    options: number,
  ) => number,
  SSL_CTX_set_ciphersuites: self.func('int SSL_CTX_set_ciphersuites(uint64_t, const char *)') as (
    context: Pointer,
    names: string,
  ) => number,
  SSL_CTX_set_verify: self.func('void SSL_CTX_set_verify(uint64_t, int, void *)') as (
    context: Pointer,
    mode: number,
    callback: null,
  ) => void,
  SSL_CTX_set_num_tickets: self.func('int SSL_CTX_set_num_tickets(uint64_t, uint64_t)') as (
    context: Pointer,
    count: number,
  ) => number,
  SSL_CTX_set_default_read_buffer_len: self.func(
    'void SSL_CTX_set_default_read_buffer_len(uint64_t, uint64_t)',
  ) as (context: Pointer, bytes: number) => void,
  SSL_CTX_set_alpn_protos: self.func('int SSL_CTX_set_alpn_protos(uint64_t, const void *, unsigned int)') as (
    context: Pointer,
    protocols: Bytes,
    length: number,
  ) => number,
  SSL_CTX_set_alpn_select_cb: self.func('void SSL_CTX_set_alpn_select_cb(uint64_t, uint64_t, void *)') as (
    context: Pointer,
    callback: Pointer,
    argument: null,
  ) => void,
  SSL_CTX_use_certificate: self.func('int SSL_CTX_use_certificate(uint64_t, uint64_t)') as (
    context: Pointer,
    certificate: Pointer,
  ) => number,
  SSL_CTX_use_PrivateKey: self.func('int SSL_CTX_use_PrivateKey(uint64_t, uint64_t)') as (
    context: Pointer,
    key: Pointer,
  ) => number,
  SSL_CTX_check_private_key: self.func('int SSL_CTX_check_private_key(uint64_t)') as (
    context: Pointer,
  ) => number,
  SSL_CTX_get_cert_store: self.func('uint64_t SSL_CTX_get_cert_store(uint64_t)') as (
    context: Pointer,
  ) => Pointer,
  X509_STORE_add_cert: self.func('int X509_STORE_add_cert(uint64_t, uint64_t)') as (
    store: Pointer,
    certificate: Pointer,
  ) => number,
  X509_free: self.func('void X509_free(uint64_t)') as (certificate: Pointer) => void,
  EVP_PKEY_free: self.func('void EVP_PKEY_free(uint64_t)') as (key: Pointer) => void,
  BIO_new_mem_buf: self.func('uint64_t BIO_new_mem_buf(const void *, int)') as (
    bytes: Bytes,
    length: number,
  ) => Pointer,
  BIO_new: self.func('uint64_t BIO_new(uint64_t)') as (method: Pointer) => Pointer,
  BIO_s_mem: self.func('uint64_t BIO_s_mem()') as () => Pointer,
  BIO_read: self.func('int BIO_read(uint64_t, void *, int)') as (
    bio: Pointer,
    into: Bytes,
    most: number,
  ) => number,
  BIO_f_buffer: self.func('uint64_t BIO_f_buffer()') as () => Pointer,
  BIO_new_socket: self.func('uint64_t BIO_new_socket(int, int)') as (fd: number, doClose: number) => Pointer,
  BIO_push: self.func('uint64_t BIO_push(uint64_t, uint64_t)') as (bio: Pointer, next: Pointer) => Pointer,
  BIO_ctrl: self.func('int64_t BIO_ctrl(uint64_t, int, int64_t, uint64_t)') as (
    bio: Pointer,
    command: number,
    large: number,
    pointer: Pointer,
  ) => number,
  BIO_int_ctrl: self.func('int64_t BIO_int_ctrl(uint64_t, int, int64_t, int)') as (
    bio: Pointer,
    command: number,
    large: number,
    integer: number,
  ) => number,
  BIO_test_flags: self.func('int BIO_test_flags(uint64_t, int)') as (bio: Pointer, flags: number) => number,
  SSL_set0_wbio: self.func('void SSL_set0_wbio(uint64_t, uint64_t)') as (ssl: Pointer, bio: Pointer) => void,
  BIO_number_read: self.func('uint64_t BIO_number_read(uint64_t)') as (bio: Pointer) => number,
  SSL_get_rbio: self.func('uint64_t SSL_get_rbio(uint64_t)') as (ssl: Pointer) => Pointer,
  BIO_free: self.func('int BIO_free(uint64_t)') as (bio: Pointer) => number,
  PEM_read_bio_X509: self.func('uint64_t PEM_read_bio_X509(uint64_t, void *, void *, void *)') as (
    bio: Pointer,
    into: null,
    callback: null,
    argument: null,
  ) => Pointer,
  PEM_read_bio_PrivateKey: self.func(
    'uint64_t PEM_read_bio_PrivateKey(uint64_t, void *, void *, void *)',
  ) as (bio: Pointer, into: null, callback: null, argument: null) => Pointer,
  i2d_X509_bio: self.func('int i2d_X509_bio(uint64_t, uint64_t)') as (
    bio: Pointer,
    certificate: Pointer,
  ) => number,
  SSL_new: self.func('uint64_t SSL_new(uint64_t)') as (context: Pointer) => Pointer,
  SSL_free: self.func('void SSL_free(uint64_t)') as (ssl: Pointer) => void,
  SSL_set_fd: self.func('int SSL_set_fd(uint64_t, int)') as (ssl: Pointer, fd: number) => number,
  SSL_set_connect_state: self.func('void SSL_set_connect_state(uint64_t)') as (ssl: Pointer) => void,
  SSL_set_accept_state: self.func('void SSL_set_accept_state(uint64_t)') as (ssl: Pointer) => void,
  SSL_do_handshake: self.func('int SSL_do_handshake(uint64_t)') as (ssl: Pointer) => number,
  SSL_read: self.func('int SSL_read(uint64_t, void *, int)') as (
    ssl: Pointer,
    into: Bytes,
    most: number,
  ) => number,
  SSL_write: self.func('int SSL_write(uint64_t, const void *, int)') as (
    ssl: Pointer,
    bytes: Bytes,
    length: number,
  ) => number,
  SSL_shutdown: self.func('int SSL_shutdown(uint64_t)') as (ssl: Pointer) => number,
  SSL_key_update: self.func('int SSL_key_update(uint64_t, int)') as (ssl: Pointer, type: number) => number,
  SSL_get_error: self.func('int SSL_get_error(uint64_t, int)') as (ssl: Pointer, result: number) => number,
  SSL_has_pending: self.func('int SSL_has_pending(uint64_t)') as (ssl: Pointer) => number,
  SSL_get_verify_result: self.func('int64_t SSL_get_verify_result(uint64_t)') as (ssl: Pointer) => number,
  SSL_get1_peer_certificate: self.func('uint64_t SSL_get1_peer_certificate(uint64_t)') as (
    ssl: Pointer,
  ) => Pointer,
  SSL_get0_alpn_selected: self.func('void SSL_get0_alpn_selected(uint64_t, void *, void *)') as (
    ssl: Pointer,
    data: Bytes,
    length: Bytes,
  ) => void,
  SSL_select_next_proto: self.func(
    'int SSL_select_next_proto(void *, void *, uint64_t, unsigned int, const void *, unsigned int)',
  ) as (
    out: unknown,
    outLength: unknown,
    ours: Pointer,
    ourLength: number,
    theirs: unknown,
    length: number,
  ) => number,
  CRYPTO_malloc: self.func('uint64_t CRYPTO_malloc(uint64_t, const char *, int)') as (
    bytes: number,
    file: string,
    line: number,
  ) => Pointer,
  ERR_get_error: self.func('uint64_t ERR_get_error()') as () => number,
  ERR_clear_error: self.func('void ERR_clear_error()') as () => void,
  ERR_reason_error_string: self.func('const char *ERR_reason_error_string(uint64_t)') as (
    error: number,
  ) => string | null,
  X509_verify_cert_error_string: self.func('const char *X509_verify_cert_error_string(int64_t)') as (
    error: number,
  ) => string,
}

// openssl/bio.h
export const BIO = {
  noClose: 0,
  ctrlFlush: 11,
  ctrlSetBufferSize: 117,
  /** The third argument of the former: of what is written, not of what is read. */
  ofWrites: 1,
  shouldRetry: 8,
} as const

// openssl/ssl.h, tls1.h
export const SSL = {
  errorSsl: 1,
  errorWantRead: 2,
  errorWantWrite: 3,
  errorSyscall: 5,
  errorZeroReturn: 6,
  ctrlExtraChain: 89, // SSL_CTRL_CHAIN_CERT: with 1, the context takes a reference of its own
  ctrlMode: 33,
  ctrlReadAhead: 41,
  ctrlSessionCache: 44,
  ctrlGroups: 92, // SSL_CTRL_SET_GROUPS_LIST
  ctrlMinVersion: 123,
  ctrlMaxVersion: 124,
  modeMovingWriteBuffer: 2,
  noCertificateCompression: 2 ** 32 + 2 ** 33, // SSL_OP_NO_TX_… and SSL_OP_NO_RX_CERTIFICATE_COMPRESSION
  verifyPeer: 1,
  verifyMustHave: 2,
  tls13: 0x0304,
  keyUpdateNotRequested: 0,
} as const

/** The bytes at an address. */
export function bytesAt(pointer: Pointer, length: number): Uint8Array {
  return koffi.decode(BigInt(pointer), 'uint8_t', length) as Uint8Array
}

/** Registers a callback of ALPN selection (SSL_CTX_set_alpn_select_cb(3)) that takes `h2` and nothing else. */
export function alpnH2Callback(): Pointer {
  if (selectH2 !== undefined) return selectH2
  // Lives as long as the process: what OpenSSL is told to answer points into it.
  const ours = openssl.CRYPTO_malloc(3, 'alpn', 0)
  koffi.encode(BigInt(ours), 'uint8_t', [2, 0x68, 0x32], 3)
  const type = koffi.proto('int (void *, void *, void *, const void *, unsigned int, void *)')
  const callback = koffi.register(
    (_ssl: unknown, out: unknown, outLength: unknown, theirs: unknown, length: number) =>
      openssl.SSL_select_next_proto(out, outLength, ours, 3, theirs, length) === NEGOTIATED ? OK : FATAL,
    koffi.pointer(type),
  )
  selectH2 = Number(koffi.address(callback))
  return selectH2
}

let selectH2: Pointer | undefined
const NEGOTIATED = 1 // OPENSSL_NPN_NEGOTIATED
const OK = 0 // SSL_TLSEXT_ERR_OK
const FATAL = 2 // SSL_TLSEXT_ERR_ALERT_FATAL
