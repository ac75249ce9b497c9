/**
 * Culvert on a real Kubernetes: installed from its manifests, a namespace with running pods annotated, everything broken
 * and replaced under load, and taken out again. Narrated step by step, or one JSON object.
 */
import { parseArgs } from 'node:util'
import { CulvertError, errorText } from '../../lib/errors.ts'
import { Narrator } from '../../lab/demo/narrator.ts'
import { ensureTools, TEST_TOOLS } from '../../cli/setup/tools.ts'
import type { Context } from './context.ts'
import { openCluster, type Cluster } from './local.ts'
import { prepare, startApplications, type Prepared } from './prepare.ts'
import { enrolmentSteps, type Step } from './steps/enrolment.ts'
import { faultSteps } from './steps/faults.ts'
import { kubernetesSteps } from './steps/kubernetes.ts'
import { leavingSteps } from './steps/leaving.ts'
import { strictSteps } from './steps/strict.ts'

const HELP = `usage: npm run test:cluster [-- OPTIONS]

Installs Culvert on the cluster that KUBECONFIG names, or on a local one when KUBE_KIT (or ../shared/kube beside the
project) can start it, and shows that it does its job there. Makes the namespaces shop, legacy, culvert-test and
culvert-system, and removes them.

  --json                    one JSON object instead of the narration
  --only TEXT               only steps whose name holds the text, after those of installation and enrolment
  --keep                    leave everything as it is at the end
  --image NAME              Culvert's image, where the cluster pulls from a registry
  --app-image NAME          the applications' image, likewise: this repository with its node_modules, node as entry point
  --help                    this text

Exit status: 0 when every step passed, 1 when one failed, 2 for a wrong command line, 69 when there is no cluster to test on.
`
const EX_UNAVAILABLE = 69

interface Options {
  readonly isJson: boolean
  readonly only: string | undefined
  readonly keep: boolean
  readonly image: string | undefined
  readonly appImage: string | undefined
}

function optionsFrom(args: readonly string[]): Options | 'help' {
  const { values } = parseArgs({
    args: [...args],
    options: {
      json: { type: 'boolean', default: false },
      only: { type: 'string' },
      keep: { type: 'boolean', default: false },
      image: { type: 'string' },
      'app-image': { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) return 'help'
  const { json, only, keep, image } = values
  return { isJson: json, only, keep, image, appImage: values['app-image'] }
}

async function main(args: readonly string[]): Promise<number> {
  let options: Options | 'help'
  try {
    options = optionsFrom(args)
  } catch (err) {
    process.stderr.write(`culvert test: ${errorText(err)}\n\n${HELP}`)
    return 2
  }
  if (options === 'help') {
    process.stdout.write(HELP)
    return 0
  }
  ensureTools(TEST_TOOLS)
  const interrupted = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupted.abort())
  const startedAt = performance.now()
  const narrator = new Narrator(options.isJson)
  narrator.heading('Culvert on Kubernetes')
  let cluster: Cluster | undefined
  let isUp = false
  try {
    isUp = await narrator.step('a cluster', async () => {
      cluster = await openCluster()
      const { gitVersion } = (
        JSON.parse(await cluster.kubectl.ok(['version', '-o', 'json'])) as {
          serverVersion: { gitVersion: string }
        }
      ).serverVersion
      return gitVersion
    })
    if (isUp && cluster) await runSteps(cluster, options, narrator, interrupted.signal)
  } finally {
    cluster?.kubectl.endAll()
    if (cluster && !options.keep) {
      const open = cluster
      await narrator.step('the cluster is put away', async () => {
        await open.kubectl.run(['delete', 'namespace', 'shop', 'legacy', 'culvert-test', '--wait=false'])
        await open.down()
        return ''
      })
    }
  }
  return narrator.finish(Math.round(performance.now() - startedAt))
}

async function runSteps(
  cluster: Cluster,
  options: Options,
  narrator: Narrator,
  signal: AbortSignal,
): Promise<void> {
  let prepared: Prepared | undefined
  let context: Context | undefined
  const isReady =
    (await narrator.step('images: Culvert’s, and one with the applications', async () => {
      prepared = await prepare(cluster, { image: options.image, appImage: options.appImage })
      return prepared.told
    })) &&
    (await narrator.step('applications on two nodes', async () => {
      await startApplications(prepared!)
      context = { ...prepared!, signal }
      return `${context.nodes.near}, ${context.nodes.far}`
    }))
  if (!isReady || !context) return
  const { only } = options
  const isWanted = ([name]: Step) => only === undefined || name.includes(only)
  const steps: Step[] = [
    ...enrolmentSteps,
    ...[...strictSteps, ...kubernetesSteps, ...faultSteps].filter(isWanted),
    ...(options.keep ? [] : leavingSteps),
  ]
  for (const [name, work] of steps) {
    if (signal.aborted) break
    const { results } = narrator
    const isInstalled = results.every(({ passed }) => passed) || results.length > 7
    if (!isInstalled) break // what follows would only say so again
    await narrator.step(name, () => work(context!))
  }
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (err) {
  process.stderr.write(`culvert test: ${errorText(err)}\n`)
  if (err instanceof CulvertError && err.hint) process.stderr.write(`hint: ${err.hint}\n`)
  process.exitCode = err instanceof CulvertError && err.code === 'CONFIG' ? EX_UNAVAILABLE : 1
}
