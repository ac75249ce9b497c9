/** `culvert install`: applies the manifests, says what that changed, and waits until everything runs. */
import { Option, type Command } from 'commander'
import { CulvertError } from '../../lib/errors.ts'
import { jsonOption, verb } from '../command.ts'
import { print, printJson, Steps } from '../output.ts'
import type { KubeApi } from '../kubernetes/api.ts'
import { pathOf, titleOf, type KubeObject } from '../kubernetes/objects.ts'
import { differencesOf } from './differences.ts'
import { checkImage, INTERMEDIATE_SECRET, objectsOf, PROFILES, type Profile } from './manifest.ts'
import {
  inCluster,
  SYSTEM_NAMESPACE,
  timeoutMs,
  timeoutOption,
  withCluster,
  type ClusterOptions,
} from './session.ts'

interface InstallOptions extends ClusterOptions {
  readonly profile: Profile
  readonly image?: string
  readonly dryRun?: boolean
  readonly wait: boolean
  readonly timeout: string
  readonly json?: boolean
}

export type Outcome = 'created' | 'changed' | 'unchanged'

export interface Applied {
  readonly object: string
  readonly outcome: Outcome
  /** Field by field, for what was changed. */
  readonly changes: readonly string[]
}

export function installVerb(): Command {
  return withCluster(
    verb({
      name: 'install',
      summary: 'install Culvert into a cluster, or upgrade it',
      description:
        'Applies the manifests of a profile to the cluster of your kubeconfig, and waits until the ca-server and an ' +
        'agent on every node are ready. May be repeated: what is as it should be is not touched. No pod is in the mesh ' +
        'until its namespace, or the pod, has the annotation culvert.dev/mesh: enabled.',
      examples: [
        ['culvert install', 'into the cluster of the current context'],
        ['culvert install --dry-run', 'what that would change'],
        ['culvert install --profile strict', 'enrolled pods take no plaintext unless an annotation says so'],
        ['culvert install --image registry.example/culvert:0.1.0', 'from your own registry'],
        ['kubectl annotate namespace shop culvert.dev/mesh=enabled', 'what to do next'],
      ],
    })
      .addOption(
        new Option('--profile <name>', 'what is installed').choices(Object.keys(PROFILES)).default('default'),
      )
      .option('--image <name:tag>', 'instead of the one in the manifests')
      .option('--dry-run', 'ask the API server what would change, and change nothing')
      .option('--no-wait', 'do not wait until everything is ready')
      .addOption(timeoutOption('5m'))
      .addOption(jsonOption()),
  ).action(install)
}

async function install(options: InstallOptions): Promise<void> {
  const { profile, image, dryRun: isDryRun = false, json: isJson = false } = options
  const objects = objectsOf(profile, image === undefined ? undefined : checkImage(image))
  await inCluster(options, async ({ api, signal }) => {
    const steps = new Steps(isJson)
    try {
      if (profile === 'existing-pki') await needIntermediate(api)
      const applied: Applied[] = []
      for await (const { object, outcome, changes } of applyAll(api, objects, isDryRun, title =>
        steps.begin(title),
      )) {
        applied.push({ object, outcome, changes })
        steps.became(`${object}: ${outcome}${isDryRun ? ' (dry run)' : ''}`)
      }
      if (options.wait && !isDryRun) {
        const { waitForRollout } = await import('./rollout.ts')
        await waitForRollout(api, {
          timeoutMs: timeoutMs(options.timeout),
          signal,
          progress: text => steps.begin(text),
        })
      }
      steps.done()
      if (isJson) printJson({ profile, dryRun: isDryRun, objects: applied })
      else print(summaryOf(applied, isDryRun))
    } catch (err) {
      steps.failed()
      throw hinted(err)
    }
  })
}

/** Applies them in their order; `begin` hears of each before. Throws `KUBERNETES` or `DENIED`. */
export async function* applyAll(
  api: KubeApi,
  objects: readonly KubeObject[],
  isDryRun: boolean,
  begin: (title: string) => void,
): AsyncGenerator<Applied> {
  let isNamespaceThere = true
  for (const object of objects) {
    begin(titleOf(object))
    const before = await api.get(pathOf(object))
    if (object.kind === 'Namespace') isNamespaceThere = before !== undefined
    // Into a namespace that is yet to be, nothing can be applied, not even for trial.
    const isUntried = isDryRun && !isNamespaceThere && object.metadata.namespace !== undefined
    const after = isUntried ? object : await api.apply(object, isDryRun)
    const changes = before ? differencesOf(before, after) : []
    yield {
      object: titleOf(object),
      outcome: before === undefined ? 'created' : changes.length > 0 ? 'changed' : 'unchanged',
      changes,
    }
  }
}

async function needIntermediate(api: KubeApi): Promise<void> {
  if (await api.get(INTERMEDIATE_SECRET)) return
  throw new CulvertError('CONFIG', `there is no Secret culvert-ca-intermediate in ${SYSTEM_NAMESPACE}`, {
    hint: `kubectl create namespace ${SYSTEM_NAMESPACE}; kubectl -n ${SYSTEM_NAMESPACE} create secret generic culvert-ca-intermediate --from-file=tls.key --from-file=tls.crt --from-file=ca.crt`,
  })
}

function summaryOf(applied: readonly Applied[], isDryRun: boolean): string {
  const count = (outcome: Outcome) => applied.filter(each => each.outcome === outcome).length
  const lines = applied.flatMap(({ object, changes }) => changes.map(change => `  ${object}: ${change}`))
  const counts = (['created', 'changed', 'unchanged'] as const)
    .map(outcome => `${count(outcome)} ${outcome}`)
    .join(', ')
  return [`${isDryRun ? 'would be: ' : ''}${counts}`, ...lines].join('\n')
}

function hinted(err: unknown): unknown {
  if (!(err instanceof CulvertError) || err.code !== 'TIMEOUT' || err.hint !== undefined) return err
  return new CulvertError('TIMEOUT', err.message, {
    hint: 'what was applied stays, and goes on starting: culvert check --post says what is missing',
  })
}
