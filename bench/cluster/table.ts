/** Rows of the comparison: what a real ambient did, and what Culvert did here. */
import { styleText } from 'node:util'
import { AMBIENT, type RowId } from './ambient.ts'

export interface Measured {
  readonly text: string
  readonly value?: number
  /** To no mesh, in the same round. */
  readonly ratio?: number
  readonly samples?: Readonly<Record<string, readonly number[]>>
}

export const TITLES: Readonly<Record<RowId, string>> = {
  'memory-agents': 'memory at rest, a node',
  'memory-control': 'memory at rest, control plane (one replica)',
  'cpu-rest': 'processor at rest, a node',
  'enrol-first-syn': 'annotated → first SYN on 15008',
  'enrol-open': 'enrolment: connections that were open',
  'enrol-new': 'enrolment: new connections at 100/s',
  'new-pod': 'first connection of a new pod',
  'flush-client': 'client pod’s rules flushed',
  'flush-server': 'strict server pod’s rules flushed',
  'kill-open': 'agent killed (-9): open connections',
  'kill-new': 'agent killed (-9): new connections',
  'kill-twice': 'killed again 5 s later',
  'rollout-new': 'rollout: new connections',
  'rollout-open': 'rollout: open connections',
  'control-away': 'control plane away: new pods',
  'strict-new': 'strict switched on: new plaintext',
  'strict-open': 'strict switched on: plaintext open before',
  'strict-node': 'a process of the node’s own, strict',
  'server-reset': 'a server resets',
  'refused-port': 'a refused port',
  udp: 'UDP',
  'rt-p50': '64 B there and back, p50',
  'rt-p99': '64 B there and back, p99',
  'conn-p50': 'new connection and echo, p50',
  'conn-rate': 'new connections a second, one by one',
  'bulk-1': 'iperf3, 1 stream',
  'bulk-8': 'iperf3, 8 streams',
  'cpu-rt': 'both agents’ CPU, a round trip',
  'cpu-conn': 'both agents’ CPU, a connection',
  'cpu-gb': 'both agents’ CPU, a gigabyte',
}

export type Results = Partial<Record<RowId, Measured>>

/** A table for a terminal; Markdown where the output is none. */
export function tableOf(results: Results, isTerminal: boolean): string {
  const rows = (Object.keys(AMBIENT) as RowId[]).map(id => [
    TITLES[id],
    AMBIENT[id].text,
    results[id]?.text ?? 'not measured',
  ])
  const head = ['', 'ambient (measured before)', 'Culvert (this run)']
  if (!isTerminal)
    return [head, head.map(() => '---'), ...rows].map(cells => `| ${cells.join(' | ')} |\n`).join('')
  const widths = [0, 1].map(at => Math.max(...[head, ...rows].map(cells => cells[at]!.length)))
  const line = (cells: readonly string[]) =>
    `${cells[0]!.padEnd(widths[0]!)}  ${cells[1]!.padEnd(widths[1]!)}  ${cells[2]}\n`
  return styleText('bold', line(head)) + rows.map(line).join('')
}
