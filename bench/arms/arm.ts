/** What an arm of the bench is: a way to carry the traffic of the client's pod to the server's. */
import type { ArmName } from '../model.ts'
import type { World } from '../world.ts'
import type { Credentials } from './stranger.ts'

export interface ArmOptions {
  /** Path of a ztunnel. @default ZTUNNEL_BIN, or the one that the tests find */
  readonly ztunnel?: string
  /** Data-plane threads of each of our agents. @default 1 */
  readonly threads?: number
  /** Of ztunnel and our agents; `info` makes both write a line for each connection. @default warn */
  readonly logLevel?: string
}

/** What is known before anything runs. */
export type Found = { readonly version?: string } | { readonly missing: string }

export interface Arm {
  readonly name: ArmName
  /** Programs that it needs beside what every lab needs. */
  readonly tools: readonly string[]
  /** Looks for its program. `missing` says why it cannot run. */
  find(): Promise<Found>
  /** Everything up to the start of its agents: configuration, certificates, rules, a control plane. */
  set(world: World, signal: AbortSignal): Promise<ArmSetup>
}

export interface ArmSetup {
  /** Its configuration as text, the same in every round. */
  readonly config: string
  /** Starts the agents. Does not wait until they are ready. */
  start(): RunningArm
  /** Ends them, and whatever `set` has started. */
  stop(): Promise<void>
}

export interface AgentProcess {
  /** `client` or `server`: whose side it is on. */
  readonly name: string
  /** Of its first process; those that this one has started belong to it. */
  readonly pid: number
}

export interface RunningArm {
  /** When the start began: CLOCK_MONOTONIC, ns. */
  readonly startedAtNs: bigint
  readonly agents: readonly AgentProcess[]
  /** Most connections at a time, when there is a limit that is known, and why. */
  readonly limit?: { readonly connections: number; readonly why: string }
  /** Absent where there is nothing but the application to attack. */
  readonly door?: Door
  /** Throws `TOOL` when an agent has ended. */
  check(): void
}

/** What a hostile peer can reach of the server's side. */
export interface Door {
  /** Of the server's pod; takes TLS. */
  readonly port: number
  /** A member of the mesh, who gets an HTTP/2 session there. Absent where it is not HTTP/2; rejects when none can be made. */
  readonly stranger?: () => Promise<Credentials>
}
