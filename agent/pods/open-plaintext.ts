/**
 * Plaintext that was open before a pod became strict. Strict refuses what is new; what was open lives on unless the pod's
 * annotations ask for its end. Two kinds: connections that the agent carries, which its threads know, and those from before
 * the enrolment, which only the kernel knows. Either is listed by whom it is from and which port it goes to.
 */
import { constants } from 'node:os'
import { formatAddress } from '../../lib/address.ts'
import { CulvertError, errorText } from '../../lib/errors.ts'
import type { Logger } from '../../lib/log.ts'
import { AGENT_PORTS, MARK, MARK_MASK } from '../ports.ts'
import { connectionsHere, destroyHere, type OpenSocket } from '../sys/open-sockets.ts'
import { inNetns } from '../sys/netns.ts'
import { isAgainstStrict } from '../worker/against-strict.ts'
import type { ConnectionRecord } from '../worker/messages.ts'
import { listeningSockets } from './listening.ts'

/** What is looked at, and by which rules. */
export interface StrictPod {
  readonly uid: string
  readonly namespace: string
  readonly name: string
  readonly ips: readonly string[]
  readonly netnsFd: number
  readonly excludeInboundPorts: readonly number[]
}

export interface OpenPlaintext {
  /** `ip:port` of the client. */
  readonly from: string
  /** The pod's port. */
  readonly port: number
  /** `carried` by the agent, or from before the pod was enrolled. */
  readonly kind: 'carried' | 'pre-enrolment'
  /** The word that a carried one is counted under. */
  readonly reason?: string
}

/** The threads, as far as they are needed. */
export interface PlaintextThreads {
  connections(): Promise<ConnectionRecord[]>
  /** Resets what comes to the pod in plaintext, probes and exclusions left alone; gives what was cut. */
  cutPlaintext(podUid: string): Promise<ConnectionRecord[]>
}

const MAX_TOLD = 20

/** Inbound plaintext to the pod that is open now. Throws `SYSCALL`. */
export async function openPlaintextOf(pod: StrictPod, threads: PlaintextThreads): Promise<OpenPlaintext[]> {
  const carried = (await threads.connections()).filter(record => isAgainstStrict(pod.uid, record))
  return [...carried.map(carriedOne), ...uncapturedOf(pod).map(uncapturedOne)]
}

/**
 * The pod has become strict: says what of its plaintext was open, and ends it when `isCut`. What cannot be ended is said.
 * Never throws.
 */
export async function endOrTell(
  pod: StrictPod,
  isCut: boolean,
  threads: PlaintextThreads,
  log: Logger,
): Promise<void> {
  const name = `${pod.namespace}/${pod.name}`
  try {
    const open = await openPlaintextOf(pod, threads)
    if (open.length === 0) return
    const told = { pod: name, connections: open.length, plaintext: open.slice(0, MAX_TOLD) }
    if (!isCut) {
      log.warn(told, 'strict: plaintext connections that were open before go on')
      return
    }
    await threads.cutPlaintext(pod.uid)
    const left = destroyAll(pod)
    log.warn(
      { ...told, ...(left && { notCut: left }) },
      left
        ? 'strict: not all plaintext that was open could be cut'
        : 'strict: plaintext that was open was cut',
    )
  } catch (err) {
    log.error(
      { pod: name, err: errorText(err) },
      'plaintext that was open before strict could not be looked at',
    )
  }
}

/** Ends the pod's plaintext from before its enrolment. Gives why some could not be, if so. */
function destroyAll(pod: StrictPod): string | undefined {
  let failure: string | undefined
  for (const socket of uncapturedOf(pod))
    try {
      inNetns(pod.netnsFd, () => destroyHere(socket))
    } catch (err) {
      if (!hasEnded(err)) failure = errorText(err)
    }
  return failure
}

function hasEnded(err: unknown): boolean {
  const cause = err instanceof CulvertError ? err.cause : undefined
  return cause instanceof Error && 'errno' in cause && cause.errno === constants.errno.ENOENT
}

/** Connections that came to the pod and that no socket of the agent's carries. */
function uncapturedOf({ netnsFd, ips, excludeInboundPorts }: StrictPod): OpenSocket[] {
  const listening = listeningSockets(netnsFd)
  const all = inNetns(netnsFd, connectionsHere)
  const ends = (local: OpenSocket['local'], remote: OpenSocket['local']) =>
    `${formatAddress(local.ip, local.port)} ${formatAddress(remote.ip, remote.port)}`
  const agents = new Set(
    all.filter(({ mark }) => (mark & MARK_MASK) === MARK).map(({ local, remote }) => ends(local, remote)),
  )
  return all.filter(
    ({ local, remote, mark }) =>
      (mark & MARK_MASK) !== MARK &&
      ips.includes(local.ip) &&
      !ips.includes(remote.ip) &&
      listening.has(local.port) &&
      !AGENT_PORTS.has(local.port) &&
      !excludeInboundPorts.includes(local.port) &&
      !agents.has(ends(remote, local)),
  )
}

function carriedOne({ source, destination, reason }: ConnectionRecord): OpenPlaintext {
  return { from: formatAddress(source.ip, source.port), port: destination.port, kind: 'carried', reason }
}

function uncapturedOne({ local, remote }: OpenSocket): OpenPlaintext {
  return { from: formatAddress(remote.ip, remote.port), port: local.port, kind: 'pre-enrolment' }
}
