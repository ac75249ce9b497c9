/**
 * `culvert uninstall`: out of the mesh first, then away. Order: un-enrol every pod and wait until its agent says so, so that
 * nobody tunnels to it any more → agents and ca-server → a pod on every node that takes away what is left → everything else.
 */
import { createInterface } from 'node:readline/promises'
import { Option, type Command } from 'commander'
import { ANNOTATION } from '../../lib/enrolment.ts'
import { CulvertError } from '../../lib/errors.ts'
import { jsonOption, verb } from '../command.ts'
import { EXIT, isTerminal, note, print, printJson, Steps } from '../output.ts'
import type { KubeApi } from '../kubernetes/api.ts'
import type { NodeOutcome } from '../kubernetes/node-pods.ts'
import { pathOf, titleOf, type KubeObject, type Pod } from '../kubernetes/objects.ts'
import { pollUntil } from '../kubernetes/poll.ts'
import { agentPods, askAgents } from './agents.ts'
import { DEFAULT_IMAGE, objectsOf } from './manifest.ts'
import { AGENTS_PATH, CA_SERVER_PATH, caServerPending, SYSTEM_PODS } from './rollout.ts'
import {
  AGENT_SELECTOR,
  inCluster,
  SYSTEM_NAMESPACE,
  timeoutMs,
  timeoutOption,
  withCluster,
  type ClusterOptions,
} from './session.ts'
import { surveyOf, wantedIn } from './survey.ts'

interface UninstallOptions extends ClusterOptions {
  readonly yes?: boolean
  readonly keepAnnotations?: boolean
  readonly now?: boolean
  readonly timeout: string
  readonly json?: boolean
}

export interface Uninstalled {
  readonly unenrolled: readonly string[]
  readonly deleted: readonly string[]
  readonly nodes: readonly NodeOutcome[]
  readonly annotations: 'removed' | 'kept'
}

export function uninstallVerb(): Command {
  return withCluster(
    verb({
      name: 'uninstall',
      summary: 'take Culvert out of a cluster and leave nothing behind',
      description:
        'Takes every pod out of the mesh and waits until its agent has removed the rules there, deletes what was ' +
        'installed, and runs a pod on every node that takes away what is left: rules, routes, sockets, /run/culvert. ' +
        'No pod is restarted; traffic goes on in plaintext. Connections that are open in the mesh may live until the ' +
        'agents’ grace period ends. The root key is deleted, too: a later installation has another one.',
      examples: [
        ['culvert uninstall', 'asks before it begins'],
        [
          'culvert uninstall --yes --keep-annotations',
          'to install again: the same namespaces are enrolled then',
        ],
        ['culvert uninstall --yes --now', 'open connections of the mesh are cut instead of waited for'],
      ],
    })
      .option('-y, --yes', 'do not ask')
      .option('--keep-annotations', `leave ${ANNOTATION.mesh} on namespaces and pods as it was`)
      .addOption(new Option('--now', 'cut open connections instead of letting agents drain'))
      .addOption(timeoutOption('10m'))
      .addOption(jsonOption()),
  ).action(uninstall)
}

async function uninstall(options: UninstallOptions): Promise<void> {
  const isJson = options.json === true
  await inCluster(options, async ({ api, signal }) => {
    if (!options.yes) await confirm(api)
    const steps = new Steps(isJson)
    const deadline = performance.now() + timeoutMs(options.timeout)
    const left = () => ({ timeoutMs: Math.max(1000, deadline - performance.now()), signal })
    try {
      const done = await takeAway(api, options, steps, left)
      steps.done()
      if (isJson) printJson(done)
      else print(textOf(done))
      if (done.nodes.some(isUnclean)) process.exitCode = EXIT.failed
    } catch (err) {
      steps.failed()
      throw err
    }
  })
}

/** Agents hear of it within a second, and take a fraction of one for each pod. */
const MOST_UNENROLMENT_MS = 60_000

type Left = () => { readonly timeoutMs: number; readonly signal: AbortSignal }

async function takeAway(
  api: KubeApi,
  { keepAnnotations = false, now: isNow = false }: UninstallOptions,
  steps: Steps,
  left: Left,
): Promise<Uninstalled> {
  const survey = await surveyOf(api)
  const image = (await installedImage(api)) ?? DEFAULT_IMAGE
  const annotated = [...survey.namespaces, ...survey.pods.map(({ pod }) => pod)]
    .map(addressed)
    .filter(
      ({ metadata }) =>
        metadata.name !== SYSTEM_NAMESPACE && metadata.annotations?.[ANNOTATION.mesh] !== undefined,
    )

  steps.begin(`taking ${wantedIn(survey).length} pods out of the mesh`)
  for (const object of annotated) await api.patch(pathOf(object), annotations({ [ANNOTATION.mesh]: null }))
  const stayed = await waitUntilOut(api, left())
  steps.done()
  if (stayed !== undefined) note(`culvert: ${stayed}; their connections there end with the agents`)

  steps.begin(
    isNow
      ? 'stopping agents and ca-server'
      : 'stopping agents and ca-server: open connections may end by themselves',
  )
  await api.delete(AGENTS_PATH, { propagationPolicy: 'Foreground' })
  await stopAgents(api, isNow, left)
  await api.delete(CA_SERVER_PATH, { propagationPolicy: 'Foreground' })

  steps.begin('cleaning the nodes')
  const { onEveryNode } = await import('../kubernetes/node-pods.ts')
  const linux = survey.nodes.filter(({ status }) => status.nodeInfo.operatingSystem === 'linux')
  const nodes = await onEveryNode(api, {
    nodes: linux.map(({ metadata }) => metadata.name),
    image,
    verb: 'clean',
    timeoutMs: Math.min(120_000, left().timeoutMs),
    signal: left().signal,
    progress: (done, of) => steps.became(`cleaning the nodes: ${done} of ${of}`),
  })

  steps.begin('deleting what was installed')
  const deleted: string[] = []
  for (const object of objectsOf('default').toReversed())
    if (await api.delete(pathOf(object))) deleted.push(titleOf(object))
  await pollUntil(
    `namespace ${SYSTEM_NAMESPACE}`,
    async () => ((await api.get(`/api/v1/namespaces/${SYSTEM_NAMESPACE}`)) ? 'it is still there' : undefined),
    left(),
  )

  steps.begin(keepAnnotations ? 'putting annotations back' : 'removing annotations')
  await settleAnnotations(api, annotated, keepAnnotations)
  return {
    unenrolled: wantedIn(survey).map(({ namespace, name }) => `${namespace}/${name}`),
    deleted,
    nodes,
    annotations: keepAnnotations ? 'kept' : 'removed',
  }
}

async function confirm(api: KubeApi): Promise<void> {
  const { context, server } = api.connection
  const where = `${context} (${server.host})`
  if (!process.stdin.isTTY || !isTerminal(process.stderr))
    throw new CulvertError('INPUT', `uninstalling from ${where} needs a yes`, {
      hint: 'culvert uninstall --yes',
    })
  const asked = createInterface({ input: process.stdin, output: process.stderr })
  const answer = await asked.question(`Take Culvert out of ${where}? Its pods will talk in plaintext. [y/N] `)
  asked.close()
  if (!/^y(es)?$/i.test(answer.trim())) throw new CulvertError('INPUT', 'nothing was done')
}

/** What is deleted with its namespace has no say: a list's items lack kind and version. */
function addressed(object: KubeObject): KubeObject {
  const kind = object.metadata.namespace === undefined ? 'Namespace' : 'Pod'
  return { ...object, apiVersion: 'v1', kind }
}

function annotations(values: Readonly<Record<string, string | null>>): object {
  return { metadata: { annotations: values } }
}

interface PodOfAgent {
  readonly namespace?: string
  readonly name?: string
  readonly state: string
}

/** What agents say that they still have in the mesh. One that does not answer is not waited for: nodes are cleaned anyway. */
async function stillIn(api: KubeApi): Promise<string | undefined> {
  const answers = await askAgents<PodOfAgent[]>(api, await agentPods(api), '/pods')
  const enrolled = answers.flatMap(({ value = [] }) =>
    value.filter(({ state }) => state !== 'not-enrolled' && state !== 'unknown'),
  )
  return enrolled.length === 0 ? undefined : `${enrolled.length} pods are still in the mesh`
}

/**
 * What is still in the mesh when there is no use in waiting longer. Without a ca-server nobody tells the agents; nodes are
 * cleaned all the same.
 */
async function waitUntilOut(
  api: KubeApi,
  { timeoutMs, signal }: ReturnType<Left>,
): Promise<string | undefined> {
  if ((await caServerPending(api)) !== undefined) return stillIn(api)
  let last: string | undefined
  const look = async () => (last = await stillIn(api))
  try {
    await pollUntil('un-enrolment', look, { timeoutMs: Math.min(timeoutMs, MOST_UNENROLMENT_MS), signal })
  } catch (err) {
    if (!(err instanceof CulvertError) || err.code !== 'TIMEOUT') throw err
  }
  return last
}

async function stopAgents(api: KubeApi, isNow: boolean, left: Left): Promise<void> {
  let isCut = false
  await pollUntil(
    'the agents',
    async () => {
      const pods = await api.list<Pod>(SYSTEM_PODS, { labelSelector: AGENT_SELECTOR })
      if (isNow && !isCut) {
        isCut = true
        for (const pod of pods) await api.delete(pathOf(addressed(pod)), { gracePeriodSeconds: 1 })
      }
      return pods.length === 0 ? undefined : `${pods.length} agents still drain open connections`
    },
    left(),
  )
}

async function installedImage(api: KubeApi): Promise<string | undefined> {
  const set = await api.get<{ spec: { template: { spec: { containers: { image: string }[] } } } }>(
    AGENTS_PATH,
  )
  return set?.spec.template.spec.containers[0]?.image
}

/** Every annotation of ours goes, or the one that was taken away comes back; what is gone by now needs neither. */
async function settleAnnotations(
  api: KubeApi,
  annotated: readonly KubeObject[],
  keep: boolean,
): Promise<void> {
  if (keep)
    for (const object of annotated)
      await api.patch(
        pathOf(object),
        annotations({ [ANNOTATION.mesh]: object.metadata.annotations![ANNOTATION.mesh]! }),
      )
  const { namespaces, pods } = await surveyOf(api)
  for (const object of [...namespaces, ...pods.map(({ pod }) => pod)].map(addressed)) {
    const ours = Object.keys(object.metadata.annotations ?? {}).filter(name =>
      name.startsWith('culvert.dev/'),
    )
    const gone = keep ? ours.filter(name => name === ANNOTATION.status) : ours
    if (gone.length > 0)
      await api.patch(pathOf(object), annotations(Object.fromEntries(gone.map(name => [name, null]))))
  }
}

function isUnclean({ report, problem }: NodeOutcome): boolean {
  return problem !== undefined || report?.findings.some(({ state }) => state === 'fail') === true
}

function textOf({ unenrolled, deleted, nodes, annotations }: Uninstalled): string {
  for (const { node, problem, report } of nodes) {
    if (problem !== undefined) note(`culvert: ${node} was not cleaned: ${problem}`)
    for (const { state, text } of report?.findings ?? [])
      if (state === 'fail') note(`culvert: ${node}: ${text}`)
  }
  const clean = nodes.filter(node => !isUnclean(node)).length
  return (
    `${unenrolled.length} pods taken out of the mesh, ${deleted.length} objects deleted, ` +
    `${clean} of ${nodes.length} nodes clean, annotations ${annotations}`
  )
}
