/**
 * Starting a lab: the supervisor runs as a process of its own, in a session of its own, and says how it goes. As
 * root it lives where it was started; without root in fresh user, mount and network namespaces.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { resolve } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { CulvertError, type ErrorCode } from '../../lib/errors.ts'
import { COMPILE_CACHE_DIR } from '../../lib/compile-cache.ts'
import { toolEnv } from '../../lib/tool-path.ts'
import { labPaths, labsDir, type LabPaths } from '../names.ts'
import { readState, type LabState } from '../state.ts'
import type { LabStatus } from '../status.ts'
import { programArgv } from '../supervisor/context.ts'

export interface StartOptions {
  /** @default default */
  readonly name?: string
  /** A lab file. The default one has two nodes and four pods. */
  readonly file?: string
  /** Like `20s`. @default the agents' own, 24h */
  readonly certTtl?: string
  /** Of agents and ca-server. @default info */
  readonly logLevel?: string
  readonly trustDomain?: string
  /** What an agent is given to end in, seconds. @default 10 */
  readonly graceSeconds?: number
  /** Name of the process whose calls from a node are a kubelet's. @default whatever calls from the node */
  readonly kubelet?: string
  /** More settings for the agents, by name as in their environment. */
  readonly agentEnv?: Readonly<Record<string, string>>
  /**
   * The lab ends with this process, however that ends. When false it stays until someone takes it down.
   * @default true
   */
  readonly isTied?: boolean
  /** Work without root even when there is. @default false */
  readonly isRootless?: boolean
  /** Told what is being done, one short phrase each. */
  readonly progress?: (step: string) => void
  /** Told what the lab warns of, also later. Without it, it is in the lab's log only. */
  readonly warn?: (line: string) => void
  /** Gives up starting; what was built is removed. */
  readonly signal?: AbortSignal
}

type Report =
  | { readonly step: string }
  | { readonly ready: LabStatus }
  | { readonly error: { readonly code: ErrorCode; readonly message: string; readonly hint?: string } }

export const DEFAULT_LAB_FILE: string = fileURLToPath(new URL('../default.yaml', import.meta.url))

/** Without root: private names for namespaces (`ip netns` keeps them below /run), seen by this lab only. */
const ROOTLESS = ['unshare', '--user', '--map-root-user', '--net', '--mount', '--']
const PRIVATE_RUN = 'mount -t tmpfs -o mode=755 tmpfs /run && exec "$@"'

/** Starts a lab's supervisor. Resolves when every pod is ready. When it fails nothing is left, and the error says why. */
export async function spawnLab(options: StartOptions): Promise<{ paths: LabPaths; state: LabState }> {
  const { name = 'default', isTied = true, isRootless = process.getuid?.() !== 0 } = options
  const dir = labsDir(!isRootless)
  const paths = labPaths(name, dir)
  if (options.signal?.aborted) throw interrupted()
  const child = spawnSupervisor({ ...options, name, isTied, isRootless }, dir)
  const stop = () => child.kill('SIGTERM')
  options.signal?.addEventListener('abort', stop, { once: true })
  try {
    await reportedReady(child, paths, options)
  } finally {
    options.signal?.removeEventListener('abort', stop)
  }
  if (options.signal?.aborted) {
    // It was up before it heard; it is on its way down now.
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    throw interrupted()
  }
  // A lab that is meant to stay must not keep this process waiting; a tied one ends with it all the same.
  child.unref()
  if (child.stdin && 'unref' in child.stdin) (child.stdin as unknown as { unref(): void }).unref()
  const state = readState(paths)
  if (!state) throw new CulvertError('LAB', `lab '${name}' ended right after it was up`)
  return { paths, state }
}

function interrupted(): CulvertError {
  return new CulvertError('LAB', 'interrupted')
}

function spawnSupervisor(
  options: StartOptions & { name: string; isTied: boolean; isRootless: boolean },
  dir: string,
): ChildProcess {
  const {
    name,
    file = DEFAULT_LAB_FILE,
    certTtl,
    logLevel,
    trustDomain,
    graceSeconds,
    kubelet,
    agentEnv = {},
  } = options
  const optional = {
    'cert-ttl': certTtl,
    'log-level': logLevel,
    'trust-domain': trustDomain,
    grace: graceSeconds,
    kubelet,
  }
  const supervisor = [
    ...programArgv('lab/supervisor/main.ts'),
    `--name=${name}`,
    `--dir=${dir}`,
    `--file=${resolve(file)}`,
    ...Object.entries(optional).flatMap(([flag, value]) => (value === undefined ? [] : `--${flag}=${value}`)),
    ...Object.entries(agentEnv).map(([name, value]) => `--agent-env=${name}=${value}`),
    ...(options.isTied ? ['--tied'] : []),
    ...(options.isRootless ? ['--rootless'] : []),
  ]
  const [command = '', ...args] = options.isRootless
    ? [...ROOTLESS, 'sh', '-c', PRIVATE_RUN, 'sh', ...supervisor]
    : supervisor
  const child = spawn(command, args, {
    // A session of its own: Ctrl-C is for whoever started the lab, who then ends it in order.
    detached: true,
    stdio: [options.isTied ? 'pipe' : 'ignore', 'ignore', 'pipe', 'pipe'],
    env: { ...toolEnv(), NODE_COMPILE_CACHE: COMPILE_CACHE_DIR },
    cwd: '/',
  })
  child.stdin?.on('error', () => undefined) // never written to: it only has to be open
  return child
}

/** Follows the supervisor's reports until it is up. Throws what it says, or what it wrote when it says nothing. */
async function reportedReady(child: ChildProcess, paths: LabPaths, options: StartOptions): Promise<void> {
  const { progress = () => undefined, isRootless = process.getuid?.() !== 0 } = options
  let said = ''
  const stderr = child.stderr!
  stderr.on('error', () => undefined)
  stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-4096)
    for (const line of chunk.toString().split('\n')) if (line) options.warn?.(line)
  })
  const failed = Promise.withResolvers<never>()
  child.once('error', err =>
    failed.reject(new CulvertError('TOOL', 'the lab could not be started', { cause: err })),
  )
  // Not 'exit': what it has reported last may still be on its way then.
  child.once('close', code => {
    const text = said.trim()
    const isRefused = isRootless && /unshare|Operation not permitted|Permission denied/.test(text)
    failed.reject(
      isRefused
        ? new CulvertError(
            'DENIED',
            `a lab without root needs user namespaces, and this machine refuses them: ${text}`,
            {
              hint: 'run as root, or allow them: sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0',
            },
          )
        : new CulvertError('LAB', `the lab ended at its start (${code}): ${text || `see ${paths.logs}`}`),
    )
  })
  const reports = createInterface({ input: child.stdio[3] as Readable })
  const ready = (async () => {
    for await (const line of reports) {
      const report = JSON.parse(line) as Report
      if ('step' in report) progress(report.step)
      else if ('ready' in report) return
      else {
        const { code, message, hint } = report.error
        throw new CulvertError(code, message, hint === undefined ? {} : { hint })
      }
    }
    await failed.promise
  })()
  try {
    await Promise.race([ready, failed.promise])
  } finally {
    ready.catch(() => undefined)
    failed.promise.catch(() => undefined)
    reports.close()
    if (!options.warn) stderr.destroy()
    ;(child.stdio[3] as Readable).destroy()
  }
}
