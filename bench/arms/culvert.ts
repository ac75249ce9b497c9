/**
 * Our own agents as a node runs them: `agent/main.ts` in the namespace of each of the two nodes, certificates and
 * discovery from a real ca-server in the control plane's, the packet rules of their own making.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { PORT } from '../../agent/ports.ts'
import { netnsName } from '../../lab/names.ts'
import { inNetnsArgv } from '../../lab/net/namespaces.ts'
import { runOk, run } from '../../lab/run.ts'
import { programArgv, programEnv, type LabContext } from '../../lab/supervisor/context.ts'
import { Parts } from '../../lab/supervisor/parts.ts'
import { lastLines } from '../../lab/files.ts'
import { logPath } from '../../lab/names.ts'
import { CulvertError } from '../../lib/errors.ts'
import { VERSION } from '../../lib/version.ts'
import type { World } from '../world.ts'
import type { Arm, ArmOptions, ArmSetup, Door } from './arm.ts'
import { strangerOf } from './stranger.ts'

const CA_TIMEOUT_MS = 10_000
const POLL_MS = 20
const GRACE_SECONDS = 1

export function culvertArm({ threads = 1, logLevel = 'warn' }: ArmOptions): Arm {
  let isWarm = false
  return {
    name: 'culvert',
    tools: ['curl'],
    find: async () => ({ version: VERSION }),
    set: async (world, signal) => {
      // As an image does when it is built: the first start of all would measure the compiler.
      if (!isWarm) await runOk([...programArgv('agent/main.ts'), '--warm-up'], { env: programEnv(), signal })
      isWarm = true
      return set(world, signal, { THREADS: String(threads) }, logLevel)
    },
  }
}

async function set(
  world: World,
  signal: AbortSignal,
  agentEnv: Readonly<Record<string, string>>,
  logLevel: string,
): Promise<ArmSetup> {
  const context: LabContext = {
    settings: {
      name: world.name,
      trustDomain: 'cluster.local',
      certTtl: undefined,
      logLevel,
      graceSeconds: GRACE_SECONDS,
      agentEnv,
    },
    paths: world.paths,
    cluster: world.cluster,
    files: world.files,
    warn: () => undefined, // agents that end are noticed by `check`
    processesChanged: () => undefined,
  }
  const parts = await Parts.create(context)
  try {
    parts.caServer.start()
    await caServerReady(world, signal)
  } catch (err) {
    await parts.stop(0)
    throw err
  }
  const sides = [world.server, world.client].map(pod => ({ pod, agent: parts.agents.get(pod.node)! }))
  const agentsOf = () =>
    sides.map(({ pod, agent }) => {
      const { current } = agent
      if (!current?.ref || current.restarts > 0)
        throw new CulvertError(
          'TOOL',
          `the agent of the ${pod.name} ended (${current?.lastExit}); it said last:\n${lastLines(logPath(world.paths, `agent-${pod.node}`), 8)}`,
        )
      return { name: pod.name, pid: current.ref.pid }
    })
  return {
    get config() {
      return agentsOf()
        .map(({ name, pid }) => `# environment, ${name}\n${environmentOf(pid)}`)
        .join('\n')
    },
    start: () => {
      const startedAtNs = process.hrtime.bigint()
      for (const { agent } of sides) agent.start()
      return { startedAtNs, agents: agentsOf(), door: doorOf(world), check: () => void agentsOf() }
    },
    stop: () => parts.stop(GRACE_SECONDS * 1000),
  }
}

/** The ca-server's own root signs for the stranger, too. */
function doorOf({ paths }: World): Door {
  const files = ['root-key.pem', 'root-cert.pem'].map(name => join(paths.ca, name))
  return {
    port: PORT.hbone,
    stranger: async () => strangerOf(files.map(file => readFileSync(file, 'latin1'))),
  }
}

async function caServerReady(world: World, signal: AbortSignal): Promise<void> {
  const url = 'http://127.0.0.1:15014/healthz/ready'
  const ask = inNetnsArgv(netnsName(world.name, 'cp'), ['curl', '-fsS', '-m', '2', '-o', '/dev/null', url])
  for (
    const deadline = performance.now() + CA_TIMEOUT_MS;
    performance.now() < deadline;
    await sleep(POLL_MS)
  ) {
    signal.throwIfAborted()
    if ((await run(ask)).code === 0) return
  }
  throw new CulvertError(
    'TOOL',
    `the ca-server did not become ready; it said last:\n${lastLines(logPath(world.paths, 'ca-server'), 8)}`,
  )
}

/** The settings that a process was started with, without what every process has. */
function environmentOf(pid: number): string {
  const common = new Set(Object.keys(programEnv()))
  return readFileSync(`/proc/${pid}/environ`, 'latin1')
    .split('\0')
    .filter(entry => entry !== '' && !common.has(entry.split('=')[0]!))
    .map(entry => `${entry}\n`)
    .join('')
}
