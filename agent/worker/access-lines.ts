/**
 * The access log's lines, rendered where the connections are: one for each connection, when it ends, with ztunnel's names
 * in ztunnel's order and our `reason` behind them, so that one query reads the logs of both. What is not to be written
 * costs a comparison. Lines are put together into writes that a pipe keeps whole.
 */
import { formatAddress } from '../../lib/address.ts'
import type { LogLevel } from '../../lib/log-level.ts'
import { REFUSED, type Reason } from '../../lib/reasons.ts'
import type { AccessLogSettings, ConnectionRecord } from './messages.ts'

/** Not more than one pipe write that the kernel keeps whole (PIPE_BUF): others write to the same descriptor. */
export const LONGEST_WRITE = 4096
/** So much is worth a message, bytes. */
const MOST_GATHERED = 64 * 1024
const LONGEST_ERROR = 1024

const isRefused: ReadonlySet<Reason> = new Set<Reason>(REFUSED)

type LineLevel = 'debug' | 'info' | 'error'

/** The line levels that are written at each log level. */
const WRITTEN: Record<LogLevel, readonly LineLevel[]> = {
  trace: ['debug', 'info', 'error'],
  debug: ['debug', 'info', 'error'],
  info: ['info', 'error'],
  warn: ['error'],
  error: ['error'],
  fatal: [],
  silent: [],
}

export class AccessLines {
  /** What stands behind the time on every line. */
  readonly #fields: string
  #written: readonly LineLevel[] = []
  #writes: string[] = []
  /** The last of the writes: there is still room. */
  #last = ''
  #lastBytes = 0
  #bytes = 0
  #timeMs = Number.NaN
  #time = ''

  constructor({ level, fields }: AccessLogSettings) {
    this.#fields = JSON.stringify({ ...fields, scope: 'access' }).slice(1, -1)
    this.level = level
  }

  set level(level: LogLevel) {
    this.#written = WRITTEN[level]
  }

  /** There is so much to write that it should not wait. */
  get isFull(): boolean {
    return this.#bytes >= MOST_GATHERED
  }

  /** A line at `debug`. Gives whether one was made. */
  opened(record: ConnectionRecord): boolean {
    return this.#write('debug', record, false)
  }

  /** A line at `info`, or at `error` when the connection failed or was refused. Gives whether one was made. */
  closed(record: ConnectionRecord): boolean {
    const isFailure = record.error !== undefined || isRefused.has(record.reason)
    return this.#write(isFailure ? 'error' : 'info', record, true)
  }

  /** What has been gathered since the last call: whole lines, as many in each as one write should have. */
  take(): string[] {
    const writes = this.#writes
    if (this.#lastBytes > 0) writes.push(this.#last)
    this.#writes = []
    this.#last = ''
    this.#lastBytes = this.#bytes = 0
    return writes
  }

  #write(level: LineLevel, record: ConnectionRecord, isEnd: boolean): boolean {
    if (!this.#written.includes(level)) return false
    const fields = JSON.stringify(fieldsOf(record, isEnd))
    const line = `{"level":"${level}","time":"${this.#now()}",${this.#fields},${fields.slice(1)}\n`
    const bytes = Buffer.byteLength(line)
    this.#bytes += bytes
    if (this.#lastBytes > 0 && this.#lastBytes + bytes > LONGEST_WRITE) {
      this.#writes.push(this.#last)
      this.#last = ''
      this.#lastBytes = 0
    }
    this.#last += line
    this.#lastBytes += bytes
    return true
  }

  /** ISO 8601; most lines share their millisecond with another. */
  #now(): string {
    const nowMs = Date.now()
    if (nowMs !== this.#timeMs) {
      this.#timeMs = nowMs
      this.#time = new Date(nowMs).toISOString()
    }
    return this.#time
  }
}

/** In the order in which they are written; undefined ones are left out. */
function fieldsOf(record: ConnectionRecord, isEnd: boolean) {
  const { source, destination, service, hboneAddress, direction, reason } = record
  const isMutual = reason === 'mtls'
  const isOutbound = direction === 'outbound'
  const cameByTunnel = !isOutbound && hboneAddress !== undefined
  const target = formatAddress(destination.ip, destination.port)
  return {
    'src.addr': formatAddress(source.ip, source.port),
    'src.workload': source.workload,
    'src.namespace': source.namespace,
    // Who came through a tunnel has proved it, also when it was refused what it asked for.
    'src.identity': isMutual || cameByTunnel ? source.identity : undefined,
    // In a tunnel the packets go to the tunnel's end, and the application's address is what the tunnel was asked for.
    'dst.addr': hboneAddress ?? target,
    'dst.hbone_addr': hboneAddress === undefined ? undefined : target,
    'dst.service': service?.hostname,
    'dst.workload': destination.workload,
    'dst.namespace': destination.namespace,
    'dst.identity': isMutual ? destination.identity : undefined,
    direction,
    // As seen from the pod that is reported on: an inbound connection's answer is what it sent.
    bytes_sent: isEnd ? (isOutbound ? record.bytesSent : record.bytesReceived) : undefined,
    bytes_recv: isEnd ? (isOutbound ? record.bytesReceived : record.bytesSent) : undefined,
    duration: isEnd ? `${Math.round(record.durationMs ?? 0)}ms` : undefined,
    error: record.error?.slice(0, LONGEST_ERROR),
    error_code: record.errorCode,
    reason: isEnd ? reason : undefined,
    msg: isEnd ? 'connection complete' : 'connection opened',
  }
}
