/** `culvert check`: whether a cluster can have Culvert, and whether what it has is healthy. */
import { Option, type Command } from 'commander'
import { errorText } from '../../lib/errors.ts'
import { FINDING_STATES, type Finding, type FindingState } from '../../lib/finding.ts'
import { jsonOption, verb } from '../command.ts'
import { EXIT, isTerminal, print, printJson, styled } from '../output.ts'
import type { KubeApi } from '../kubernetes/api.ts'
import { checkImage, DEFAULT_IMAGE } from './manifest.ts'
import {
  inCluster,
  outputOption,
  timeoutMs,
  timeoutOption,
  withCluster,
  type ClusterOptions,
} from './session.ts'
import type { Survey } from './survey.ts'

interface CheckOptions extends ClusterOptions {
  readonly pre?: boolean
  readonly post?: boolean
  readonly nodes: boolean
  readonly image?: string
  readonly timeout: string
  readonly output: 'text' | 'json'
  readonly json?: boolean
}

/** A finding, and where: `cluster`, `culvert`, `node NAME`. */
export interface PlacedFinding extends Finding {
  readonly scope: string
}

export function checkVerb(): Command {
  return withCluster(
    verb({
      name: 'check',
      summary: 'whether a cluster can have Culvert, and whether what it has is healthy',
      description:
        'Before an installation: tries on every node, in a pod that is gone afterwards, all that an agent will do there, ' +
        'and looks for what is in the way: other meshes, NetworkPolicies that drop port 15008, annotations that are not ' +
        'understood. After it: agents on every node, versions, certificates, and every pod that should be enrolled. ' +
        'Ends with 1 when something fails.',
      examples: [
        ['culvert check', 'what fits: before an installation or after it'],
        [
          'culvert check --pre --image registry.example/culvert:0.1.0',
          'before, with the image that nodes can pull',
        ],
        ['culvert check --pre --no-nodes', 'without pods on the nodes: only what the API server knows'],
        ['culvert check --post -o json', 'for scripts'],
      ],
    })
      .addOption(new Option('--pre', 'what an installation needs').conflicts('post'))
      .addOption(new Option('--post', 'what an installation should be'))
      .option('--no-nodes', 'start no pods on nodes')
      .option('--image <name:tag>', 'of the pods on nodes; default: what is installed, or the manifests’')
      .addOption(timeoutOption('90s'))
      .addOption(outputOption())
      .addOption(jsonOption()),
  ).action(check)
}

async function check(options: CheckOptions): Promise<void> {
  const image = options.image === undefined ? undefined : checkImage(options.image)
  const findings = await inCluster(options, async ({ api, signal }) => {
    const [{ surveyOf }, { isInstalled, checkInstallation }, { checkCluster }] = await Promise.all([
      import('./survey.ts'),
      import('./check-installation.ts'),
      import('./check-cluster.ts'),
    ])
    const survey = await surveyOf(api)
    const isPost = options.post ?? (options.pre ? false : await isInstalled(api))
    const found = (scope: string, all: readonly Finding[]) => all.map(finding => ({ scope, ...finding }))
    if (isPost) return found('culvert', await checkInstallation(api, survey))
    const cluster = found('cluster', await checkCluster(api, survey))
    if (!options.nodes) return cluster
    return [...cluster, ...(await checkNodes(api, survey, image ?? (await imageOf(api)), options, signal))]
  })
  if (options.json || options.output === 'json') printJson({ findings, ...countsOf(findings) })
  else print(textOf(findings))
  if (findings.some(({ state }) => state === 'fail')) process.exitCode = EXIT.failed
}

async function imageOf(api: KubeApi): Promise<string> {
  const { AGENTS_PATH } = await import('./rollout.ts')
  const set = await api.get<{ spec: { template: { spec: { containers: { image: string }[] } } } }>(
    AGENTS_PATH,
  )
  return set?.spec.template.spec.containers[0]?.image ?? DEFAULT_IMAGE
}

async function checkNodes(
  api: KubeApi,
  { nodes }: Survey,
  image: string,
  options: CheckOptions,
  signal: AbortSignal,
): Promise<PlacedFinding[]> {
  const { onEveryNode } = await import('../kubernetes/node-pods.ts')
  const linux = nodes.filter(({ status }) => status.nodeInfo.operatingSystem === 'linux')
  const progress = progressLine('looking at nodes')
  try {
    const outcomes = await onEveryNode(api, {
      nodes: linux.map(({ metadata }) => metadata.name),
      image,
      verb: 'check',
      timeoutMs: timeoutMs(options.timeout),
      signal,
      progress: progress.tell,
    })
    return outcomes.flatMap(({ node, report, problem }): PlacedFinding[] =>
      report
        ? report.findings.map(finding => ({ scope: `node ${node}`, ...finding }))
        : [
            {
              scope: `node ${node}`,
              id: 'probe',
              state: 'fail',
              text: `the pod that looks at it did not: ${problem}`,
              hint: /pull/i.test(problem ?? '')
                ? `nodes cannot get ${image}: push it, import it, or give --image`
                : 'is it refused by an admission policy, or is the node not ready?',
            },
          ],
    )
  } catch (err) {
    if (signal.aborted) throw err
    return [
      {
        scope: 'cluster',
        id: 'probe',
        state: 'fail',
        text: `nodes could not be looked at: ${errorText(err)}`,
      },
    ]
  } finally {
    progress.end()
  }
}

/** One line that changes, on a terminal; nothing elsewhere. */
export function progressLine(what: string): { tell: (done: number, of: number) => void; end: () => void } {
  const isLive = isTerminal(process.stderr)
  return {
    tell: (done, of) => {
      if (isLive) process.stderr.write(`\r${styled('dim', `${what}: ${done} of ${of}`, process.stderr)}`)
    },
    end: () => {
      if (isLive) process.stderr.write('\r\u001b[K')
    },
  }
}

function countsOf(findings: readonly Finding[]): Record<FindingState, number> {
  const count = (state: FindingState) => findings.filter(finding => finding.state === state).length
  return Object.fromEntries(FINDING_STATES.map(state => [state, count(state)])) as Record<
    FindingState,
    number
  >
}

const MARK = { ok: ['green', '✔'], warn: ['yellow', '!'], fail: ['red', '✘'] } as const

/** By scope, worst first within each. */
function textOf(findings: readonly PlacedFinding[]): string {
  const scopes = [...new Set(findings.map(({ scope }) => scope))]
  const blocks = scopes.map(scope => {
    const own = findings.filter(finding => finding.scope === scope)
    own.sort((a, b) => FINDING_STATES.indexOf(b.state) - FINDING_STATES.indexOf(a.state))
    return [styled('bold', scope), ...own.flatMap(linesOf)].join('\n')
  })
  const { ok, warn, fail } = countsOf(findings)
  return [...blocks, `${ok} ok, ${warn} to know, ${fail} failed`].join('\n\n')
}

function linesOf({ state, text, hint }: Finding): string[] {
  const [style, mark] = MARK[state]
  const line = `  ${styled(style, mark)} ${text}`
  return hint === undefined || state === 'ok' ? [line] : [line, `    ${styled('dim', `hint: ${hint}`)}`]
}
