/**
 * The beginning of the agent: the data-plane threads first, then everything else. A thread takes about as long to come
 * up as gRPC takes to load, and where there is a second processor both take place at once.
 */
import type { Shutdown } from '../lib/lifecycle.ts'
import { createLogger, type Logger } from '../lib/log.ts'
import { errorText } from '../lib/errors.ts'
import { VERSION } from '../lib/version.ts'
import type { AgentConfig } from './config.ts'
import { ThreadHeaps } from './observe/thread-heaps.ts'
import { DEFAULT_PROXY } from './proxy/pod-context.ts'
import { descriptorLimit } from './sys/fd.ts'
import type { Control } from './worker/messages.ts'
import { DataPlaneThreads, type ThreadEvents } from './worker/threads.ts'

/** Whom the threads ask, and whom they tell. */
export interface ThreadOwner {
  readonly control: Control
  readonly events: Omit<ThreadEvents, 'died'>
}

export interface StartedThreads {
  readonly threads: DataPlaneThreads
  /** Resolves when all of them are ready; rejects when one cannot start. */
  readonly ready: Promise<void>
  /** Before the first pod is told: without pods threads ask nothing, and what they tell of themselves is all zero. */
  adopt(owner: ThreadOwner): void
}

/** What is there before the rest of the agent. */
export interface AgentStart {
  /** When the process began, Unix time in milliseconds. */
  readonly startedAtMs: number
  readonly config: AgentConfig
  /** Carries the node's name. */
  readonly log: Logger
  readonly dataPlane: StartedThreads
  readonly heaps: ThreadHeaps
}

/** Runs an agent until it is told to stop; resolves with the exit code. Rejects when it cannot start, with threads left running. */
export async function startAgent(config: AgentConfig, shutdown: Shutdown): Promise<number> {
  const startedAtMs = Math.round(performance.timeOrigin)
  const log = createLogger({ node: config.nodeName }, config.logLevel)
  log.info({ version: VERSION, pid: process.pid, threads: config.threads }, 'agent starting')
  const heaps = new ThreadHeaps() // before there are threads
  const dataPlane = startThreads(config, log)
  const { runAgent } = await import('./agent.ts')
  return runAgent({ startedAtMs, config, log, dataPlane, heaps }, shutdown)
}

function startThreads(config: AgentConfig, log: Logger): StartedThreads {
  let owner: ThreadOwner | undefined
  const owned = () => {
    if (!owner) throw new Error('asked before the agent was there')
    return owner
  }
  const threads = new DataPlaneThreads(
    {
      route: async question => owned().control.route(question),
      admit: async question => owned().control.admit(question),
    },
    {
      traffic: (report, thread) => owner?.events.traffic(report, thread),
      refusals: refusals => owner?.events.refusals(refusals),
      accessLog: writes => owner?.events.accessLog(writes),
      counters: (thread, counters, dialled) => owner?.events.counters(thread, counters, dialled),
      died: error => {
        log.fatal({ err: errorText(error) }, 'a data-plane thread died; ending the process')
        process.exit(70)
      },
    },
    log.child({ component: 'data-plane' }),
  )
  // One pod may have three quarters of all there are.
  const maxConnections = Math.min(
    DEFAULT_PROXY.maxConnections,
    Math.floor((descriptorLimit() * 0.75) / config.threads),
  )
  const ready = threads.start(config.threads, {
    proxy: { ...config.tunnel, clusterId: config.clusterId, maxConnections },
    accessLog: { level: config.logLevel, fields: { node: config.nodeName } },
  })
  ready.catch(() => undefined) // whoever starts the agent waits for it, but may come to that only later
  return {
    threads,
    ready,
    adopt: given => {
      owner = given
    },
  }
}
