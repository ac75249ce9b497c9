/**
 * One TLS connection over one socket, by OpenSSL: handshake, records in, records out. Synchronous and without a
 * callback: whoever owns it knows when the socket is ready. The socket must be non-blocking and stays the caller's.
 */
import type { X509Certificate } from 'node:crypto'
import { errnoName, lastErrno } from './libc.ts'
import { BIO, bytesAt, openssl, SSL, type Pointer } from './openssl.ts'
import { opensslReason, takeCertificate, type TlsContext } from './tls-context.ts'

/** A handshake or a record that failed; the connection is of no use any more. */
export class TlsFailure extends Error {
  override readonly name = 'TlsFailure'
  /** `ECONNRESET` and the like when the socket failed, a name of OpenSSL's in capitals otherwise. */
  readonly code: string
  /** The peer's certificate was not accepted. */
  isAboutCertificate = false
  /** The peer was gone before it had said a word. */
  isSilent = false

  constructor(message: string, code: string) {
    super(message)
    this.code = code
  }
}

/** What `read`, `write` and `handshake` give besides a number of bytes. */
export const WANTS_READ = -1
export const WANTS_WRITE = -2 as const
/** The peer has said that it sends no more (close_notify), or the connection just ended. */
export const ENDED = -3

/**
 * Records gathered before they go to the kernel, in one call: OpenSSL would make one of each, and the kernel one
 * packet of each call. Memory that is never written to costs nothing.
 */
const WRITE_BUFFER = 288 * 1024
/** AES-GCM is good for 2^24.5 full records under one key (RFC 8446 §5.5): a new key well before. */
const REKEY_AFTER_BYTES = 2 ** 36

const failed = new Error('TLS failed')

export class TlsChannel {
  #ssl: Pointer
  readonly #out: Pointer
  readonly #rekeyAfterBytes: number
  #written = 0

  /** `fd` must be connected. */
  constructor(
    context: TlsContext,
    fd: number,
    side: 'client' | 'server',
    { rekeyAfterBytes = REKEY_AFTER_BYTES } = {},
  ) {
    this.#rekeyAfterBytes = rekeyAfterBytes
    this.#ssl = openssl.SSL_new(context.pointer)
    if (this.#ssl === 0 || openssl.SSL_set_fd(this.#ssl, fd) !== 1) {
      this.free()
      throw new TlsFailure(`no TLS connection: ${opensslReason()}`, 'ERR_SSL')
    }
    this.#out = openssl.BIO_new(openssl.BIO_f_buffer())
    openssl.BIO_int_ctrl(this.#out, BIO.ctrlSetBufferSize, WRITE_BUFFER, BIO.ofWrites)
    openssl.BIO_push(this.#out, openssl.BIO_new_socket(fd, BIO.noClose))
    openssl.SSL_set0_wbio(this.#ssl, this.#out) // which frees them with the rest
    if (side === 'client') openssl.SSL_set_connect_state(this.#ssl)
    else openssl.SSL_set_accept_state(this.#ssl)
  }

  /** 0 when it is done, or what it waits for. Throws `TlsFailure`. */
  handshake(): number {
    openssl.ERR_clear_error()
    const result = openssl.SSL_do_handshake(this.#alive())
    return result === 1 ? 0 : this.#unless(result, 'handshake')
  }

  /** Bytes read, or what it waits for, or `ENDED`. Gives one record at most. Throws `TlsFailure`. */
  read(into: Buffer): number {
    const count = openssl.SSL_read(this.#alive(), into, into.length)
    return count > 0 ? count : this.#unless(count, 'read')
  }

  /** Bytes have come from the peer, whatever they were. */
  get hasHeard(): boolean {
    return this.#ssl !== 0 && openssl.BIO_number_read(openssl.SSL_get_rbio(this.#ssl)) > 0
  }

  /** There are records that have been taken from the socket and not been read. */
  get hasMore(): boolean {
    return this.#ssl !== 0 && openssl.SSL_has_pending(this.#ssl) === 1
  }

  /**
   * Encrypts bytes: true when they are with the kernel, false when some wait here until `flush` gives true, or
   * `WANTS_WRITE`: none was taken, and it must be called again with the same bytes, wherever they are then. Throws
   * `TlsFailure`.
   */
  write(bytes: Buffer, length: number): boolean | typeof WANTS_WRITE {
    const ssl = this.#alive()
    const count = openssl.SSL_write(ssl, bytes, length)
    if (count <= 0) {
      this.#unless(count, 'write')
      return WANTS_WRITE
    }
    this.#written += count
    if (this.#written >= this.#rekeyAfterBytes) {
      this.#written = 0
      openssl.SSL_key_update(ssl, SSL.keyUpdateNotRequested)
    }
    return this.flush()
  }

  /** Reports whether everything written is with the kernel. Throws `TlsFailure`. */
  flush(): boolean {
    this.#alive()
    if (openssl.BIO_ctrl(this.#out, BIO.ctrlFlush, 0, 0) > 0) return true
    const errno = lastErrno() // before anything else is called
    if (openssl.BIO_test_flags(this.#out, BIO.shouldRetry) !== 0) return false
    openssl.ERR_clear_error()
    throw new TlsFailure(`write ${errnoName(errno)}`, errnoName(errno))
  }

  /** Says that no more is sent. What goes wrong with it does not matter any more. */
  shutdown(): void {
    if (this.#ssl === 0) return
    openssl.SSL_shutdown(this.#ssl)
    openssl.BIO_ctrl(this.#out, BIO.ctrlFlush, 0, 0)
    openssl.ERR_clear_error()
  }

  /** The peer's certificate, whose chain was verified in the handshake. */
  peerCertificate(): X509Certificate | undefined {
    const certificate = openssl.SSL_get1_peer_certificate(this.#alive())
    return certificate === 0 ? undefined : takeCertificate(certificate)
  }

  /** The protocol that was agreed on, empty for none. */
  alpn(): string {
    const at = new Uint8Array(8)
    const length = new Uint8Array(4)
    openssl.SSL_get0_alpn_selected(this.#alive(), at, length)
    const count = new DataView(length.buffer).getUint32(0, true)
    if (count === 0) return ''
    return Buffer.from(bytesAt(Number(new DataView(at.buffer).getBigUint64(0, true)), count)).toString(
      'latin1',
    )
  }

  free(): void {
    const ssl = this.#ssl
    this.#ssl = 0
    if (ssl !== 0) openssl.SSL_free(ssl)
  }

  #alive(): Pointer {
    if (this.#ssl === 0) throw failed
    return this.#ssl
  }

  #unless(result: number, during: string): number {
    const errno = lastErrno() // before anything else is called
    const why = openssl.SSL_get_error(this.#ssl, result)
    if (why === SSL.errorWantRead) return WANTS_READ
    if (why === SSL.errorWantWrite) return WANTS_WRITE
    if (why === SSL.errorZeroReturn) return ENDED
    return this.#fail(why, during, errno)
  }

  #fail(why: number, during: string, errno: number): number {
    const error = openssl.ERR_get_error()
    openssl.ERR_clear_error()
    const verified = openssl.SSL_get_verify_result(this.#ssl)
    if (verified !== 0) {
      const code = VERIFY_ERRORS[verified] ?? `X509_V_ERR_${verified}`
      const failure = new TlsFailure(openssl.X509_verify_cert_error_string(verified), code)
      failure.isAboutCertificate = true
      throw failure
    }
    const reason = error === 0 ? undefined : openssl.ERR_reason_error_string(error)
    const isEnd = reason === 'unexpected eof while reading' || (why === SSL.errorSyscall && errno === 0)
    if (isEnd && during === 'read') return ENDED
    if (isEnd) throw new TlsFailure(`peer disconnected during the ${during}`, 'CLOSED')
    if (why === SSL.errorSyscall) throw new TlsFailure(`${during} ${errnoName(errno)}`, errnoName(errno))
    const code = `ERR_SSL_${(reason ?? 'unknown').toUpperCase().replace(/[^A-Z0-9]+/g, '_')}`
    throw new TlsFailure(reason ?? `${during} failed`, code)
  }
}

/** openssl/x509_vfy.h; the names that Node gives them. */
const VERIFY_ERRORS: Readonly<Record<number, string>> = {
  2: 'UNABLE_TO_GET_ISSUER_CERT',
  7: 'CERT_SIGNATURE_FAILURE',
  9: 'CERT_NOT_YET_VALID',
  10: 'CERT_HAS_EXPIRED',
  18: 'DEPTH_ZERO_SELF_SIGNED_CERT',
  19: 'SELF_SIGNED_CERT_IN_CHAIN',
  20: 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  21: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  22: 'CERT_CHAIN_TOO_LONG',
  23: 'CERT_REVOKED',
  24: 'INVALID_CA',
  25: 'PATH_LENGTH_EXCEEDED',
  26: 'INVALID_PURPOSE',
  27: 'CERT_UNTRUSTED',
  28: 'CERT_REJECTED',
}
