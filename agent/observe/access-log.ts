/**
 * One line for each connection, when it ends, with ztunnel's names in ztunnel's order and our `reason` behind them, so
 * that one query reads the logs of both. Lines are written by a thread of their own: a reader that is too slow costs
 * lines, which are counted, and never holds the event loop.
 */
import { pino, stdTimeFunctions } from 'pino'
import { formatAddress } from '../../lib/address.ts'
import type { Logger } from '../../lib/log.ts'
import { REFUSED, type Reason } from '../../lib/reasons.ts'
import type { ConnectionRecord } from '../worker/messages.ts'

export interface AccessLogOptions {
  /** Fields on every line. */
  fields: Readonly<Record<string, string>>
  level: string
  /** Descriptor that lines go to. @default 1 */
  fd?: number
  /** What may wait for the reader before lines are dropped. @default 4 MiB */
  mostBufferedBytes?: number
  /** Called with the number of lines that were dropped. */
  onDropped?: (lines: number) => void
}

// Not more than one pipe write that the kernel keeps whole (PIPE_BUF): other writers share the descriptor.
const LONGEST_WRITE = 4096
const WRITE_FROM = 2048
const FLUSH_EVERY_MS = 100
const LONGEST_ERROR = 1024

const isRefused: ReadonlySet<Reason> = new Set<Reason>(REFUSED)

export class AccessLog {
  readonly #destination: ReturnType<typeof pino.destination>
  readonly #log: Logger

  constructor({ fields, level, fd = 1, mostBufferedBytes = 4 * 1024 * 1024, onDropped }: AccessLogOptions) {
    this.#destination = pino.destination({
      dest: fd,
      sync: false,
      minLength: WRITE_FROM,
      maxWrite: LONGEST_WRITE,
      maxLength: mostBufferedBytes,
      periodicFlush: FLUSH_EVERY_MS,
    })
    this.#destination.on('drop', () => onDropped?.(1))
    this.#destination.on('error', () => onDropped?.(1)) // the reader is gone
    this.#log = pino(
      {
        level,
        base: { ...fields, scope: 'access' },
        timestamp: stdTimeFunctions.isoTime,
        formatters: { level: label => ({ level: label }) },
      },
      this.#destination,
    )
  }

  set level(level: string) {
    this.#log.level = level
  }

  /** A line at `debug`. */
  opened(record: ConnectionRecord): void {
    if (this.#log.isLevelEnabled('debug')) this.#log.debug(common(record), 'connection opened')
  }

  /** A line at `info`, or at `error` when the connection failed or was refused. */
  closed(record: ConnectionRecord): void {
    const isFailure = record.error !== undefined || isRefused.has(record.reason)
    const level = isFailure ? 'error' : 'info'
    if (!this.#log.isLevelEnabled(level)) return
    const isOutbound = record.direction === 'outbound'
    const fields = {
      ...common(record),
      // As seen from the pod that is reported on: an inbound connection's answer is what it sent.
      bytes_sent: isOutbound ? record.bytesSent : record.bytesReceived,
      bytes_recv: isOutbound ? record.bytesReceived : record.bytesSent,
      duration: `${Math.round(record.durationMs ?? 0)}ms`,
      error: record.error?.slice(0, LONGEST_ERROR),
      error_code: record.errorCode,
      reason: record.reason,
    }
    this.#log[level](fields, 'connection complete')
  }

  /** Waits until what was logged has been written, but not for a reader that has stopped reading. */
  async flush(timeoutMs = 1000): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, timeoutMs)
    this.#destination.flush(() => resolve())
    await promise
    clearTimeout(timer)
  }
}

function common(record: ConnectionRecord) {
  const { source, destination, service, hboneAddress } = record
  const isMutual = record.reason === 'mtls'
  const cameByTunnel = record.direction === 'inbound' && hboneAddress !== undefined
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
    direction: record.direction,
  }
}
