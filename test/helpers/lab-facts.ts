/** What a lab's agents say of connections: in their access log, in their metrics, and whether the two agree. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { accessLog, until, type AccessLine } from '../../lab/demo/facts.ts'
import type { Lab } from '../../lab/lab.ts'
import type { Ran } from '../../lab/run.ts'

/** What to look for in an access-log line; absent fields do not matter. */
export interface Sought {
  readonly direction?: 'inbound' | 'outbound'
  /** Workload, or the start of the address, of the one who called. */
  readonly from?: string
  /** Where the application wanted to go. */
  readonly to?: string
}

/** The lines of one node's ended connections, from a moment on. */
export class Watch {
  readonly #lab: Lab
  readonly #node: string
  #seen: number

  constructor(lab: Lab, node: string) {
    this.#lab = lab
    this.#node = node
    this.#seen = endedConnections(lab, node).length
  }

  /** What has come since the watch began or `forget` was called. */
  lines(sought: Sought = {}): AccessLine[] {
    return endedConnections(this.#lab, this.#node)
      .slice(this.#seen)
      .filter(line => isSought(line, sought))
  }

  /** The first such line, and no earlier one counts any more. */
  async next(sought: Sought, timeoutMs = 20_000): Promise<AccessLine> {
    const line = await until(
      `an access-log line of ${this.#node} ${JSON.stringify(sought)}`,
      timeoutMs,
      () => this.lines(sought)[0],
    )
    this.forget()
    return line
  }

  forget(): void {
    this.#seen = endedConnections(this.#lab, this.#node).length
  }
}

export function endedConnections(lab: Lab, node: string): AccessLine[] {
  return accessLog(lab, node).filter(line => line['msg'] === 'connection complete')
}

/** The application's address of the far end, whether a tunnel led there or not. */
export function targetOf(line: AccessLine): string {
  return String(line['dst.hbone_addr'] ?? line['dst.addr'])
}

function isSought(line: AccessLine, { direction, from, to }: Sought): boolean {
  if (direction !== undefined && line['direction'] !== direction) return false
  if (to !== undefined && targetOf(line) !== to) return false
  return from === undefined || line['src.workload'] === from || String(line['src.addr']).startsWith(from)
}

/** A node's metrics, as Prometheus would read them. */
export async function metricsOf(lab: Lab, node: string): Promise<string> {
  return (
    await lab.execOnNode(node, ['curl', '-sS', '-m', '5', 'http://127.0.0.1:15020/metrics'])
  ).stdout.toString()
}

/** The value of one series, given as it is written: `name{label="value"}`; 0 when there is none. */
export function valueOf(metrics: string, series: string): number {
  const line = metrics.split('\n').find(text => text.startsWith(`${series} `))
  return line === undefined ? 0 : Number(line.slice(series.length + 1))
}

/** How many connections ended under each `direction reason`, by the metrics. */
export function countedWords(metrics: string): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const [, direction, reason, count] of metrics.matchAll(
    /^culvert_connections_total\{direction="(\w+)",reason="([\w-]+)"\} (\d+)$/gm,
  ))
    counts[`${direction} ${reason}`] = Number(count)
  return counts
}

/** The same by the access log. */
export function loggedWords(lines: readonly AccessLine[]): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const { direction, reason } of lines) {
    const word = `${String(direction)} ${String(reason)}`
    counts[word] = (counts[word] ?? 0) + 1
  }
  return counts
}

/** What a process has open, as the kernel names it: `socket:[1]`, `/run/netns/…`. */
export function openFiles(pid: number): string[] {
  const fds = `/proc/${pid}/fd`
  return readdirSync(fds).flatMap(fd => {
    try {
      return readlinkSync(`${fds}/${fd}`)
    } catch {
      return [] // closed meanwhile
    }
  })
}

/** The name of a process; empty when it has ended. */
export function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim()
  } catch {
    return ''
  }
}

/**
 * Reports whether curl met a reset: not an end (52), not silence (28). One that comes before curl has looked at its
 * connection is a failure to connect for it (7); later it is a failure to send (55) or to receive (56).
 */
export function wasReset({ code, stderr }: Ran): boolean {
  return code === 7 || ((code === 55 || code === 56) && /reset/i.test(stderr))
}
