/**
 * The cluster that the tests run on: the one that `KUBECONFIG` names, or a local one of two nodes. For that a kit is
 * needed, which is no part of this repository: programs `kube-up`, `kube-down`, `kube-load` in the folder that
 * `KUBE_KIT` names, or in `../shared/kube` beside the project.
 */
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CulvertError } from '../../lib/errors.ts'
import { toolEnv } from '../../lib/tool-path.ts'
import { run, runOk } from '../../lab/run.ts'
import { Kubectl } from './kubectl.ts'

const BESIDE = fileURLToPath(new URL('../../../shared/kube/', import.meta.url))

export interface Cluster {
  readonly kubectl: Kubectl
  /** For programs that are to find the cluster, too. */
  readonly env: NodeJS.ProcessEnv
  /** Brings images (tar files) to every node; undefined where they must come from a registry. */
  readonly load: ((...tars: readonly string[]) => Promise<void>) | undefined
  /** Runs a program on a node, in all its namespaces; undefined where there is no way there. */
  readonly onNode: ((node: string, argv: readonly string[]) => Promise<string>) | undefined
  /** Where the logs of a local cluster are. */
  readonly logs: string | undefined
  down(): Promise<void>
}

/** Where the kit is; undefined when there is none, or not for this machine. */
export function kubeKit(env: NodeJS.ProcessEnv = process.env): string | undefined {
  const dir = env['KUBE_KIT'] ?? BESIDE
  const isUsable = process.platform === 'linux' && process.arch === 'x64' && process.getuid?.() === 0
  return isUsable && existsSync(join(dir, 'kube-up')) ? dir : undefined
}

/** The cluster to test on. Throws `CONFIG` when there is none, `TOOL` when the local one cannot be started. */
export async function openCluster(): Promise<Cluster> {
  if (process.env['KUBECONFIG']) return named()
  const kit = kubeKit()
  if (kit !== undefined) return await startLocal(kit)
  throw new CulvertError('CONFIG', 'there is no cluster to test on', {
    hint: 'set KUBECONFIG to one that may be changed, or KUBE_KIT to a folder with kube-up (as root, on amd64)',
  })
}

function named(): Cluster {
  return {
    kubectl: new Kubectl(process.env),
    env: process.env,
    load: undefined,
    onNode: undefined,
    logs: undefined,
    down: () => Promise.resolve(),
  }
}

async function startLocal(kit: string): Promise<Cluster> {
  const dir = await mkdtemp(join(tmpdir(), 'culvert-kube-'))
  const program = (name: string) => join(kit, name)
  const env = { ...toolEnv(), KUBE_NAME: `cv${process.pid}`, HOME: process.env['HOME'] ?? '/root' }
  const down = async () => {
    await run([program('kube-down'), dir], { env })
    await rm(dir, { recursive: true, force: true })
  }
  try {
    await runOk([program('kube-up'), dir], { env })
    const said = await runOk(['sh', '-c', `. ${dir}/env; echo "$KUBECONFIG"; echo "$PATH"`], { env })
    const [kubeconfig = '', path = ''] = said.stdout.toString().split('\n')
    const inside = { ...env, KUBECONFIG: kubeconfig, PATH: path }
    return {
      kubectl: new Kubectl(inside),
      env: inside,
      load: async (...tars) => void (await runOk([program('kube-load'), dir, ...tars], { env: inside })),
      onNode: async (node, argv) =>
        (await runOk([program('kube-node'), dir, node, ...argv], { env: inside })).stdout.toString(),
      logs: join(dir, 'logs'),
      down,
    }
  } catch (err) {
    await down().catch(() => undefined) // what went wrong first is what counts
    throw err
  }
}
