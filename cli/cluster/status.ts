/** `culvert status`: agents by node, and the pods that should be in the mesh, with what was observed of each. */
import type { Command } from 'commander'
import { jsonOption, verb } from '../command.ts'
import { print, printJson, styled, table } from '../output.ts'
import { isReady, troubleOf, type Pod } from '../kubernetes/objects.ts'
import { inCluster, outputOption, withCluster, type ClusterOptions } from './session.ts'
import type { Survey, SurveyedPod } from './survey.ts'

interface StatusOptions extends ClusterOptions {
  readonly namespace?: string
  readonly all?: boolean
  readonly output: 'text' | 'json'
  readonly json?: boolean
}

export interface ClusterStatus {
  readonly nodes: readonly {
    readonly name: string
    /** Undefined: there is none. */
    readonly agent?: {
      readonly pod: string
      readonly image: string
      readonly ready: boolean
      readonly why?: string
    }
    readonly enrolled: number
    readonly wanted: number
  }[]
  readonly namespaces: readonly {
    readonly name: string
    readonly mtls: 'strict' | 'permissive' | 'mixed'
    readonly wanted: number
    readonly enrolled: number
    readonly pending: number
    readonly drifted: number
  }[]
  readonly pods: readonly {
    readonly namespace: string
    readonly name: string
    readonly node: string
    /** `unknown`: nothing was written of it yet. */
    readonly state: 'enrolled' | 'pending' | 'drifted' | 'unknown'
    readonly detail: string
    readonly since?: string
  }[]
}

export function statusVerb(): Command {
  return withCluster(
    verb({
      name: 'status',
      summary: 'who is in the mesh, and who should be and is not',
      description:
        'Shows the agent of each node, and for each namespace with pods that should be in the mesh how many are, as their ' +
        'agents have observed it (the annotation culvert.dev/status). Pods that are not as they should be are listed, with why.',
      examples: [
        ['culvert status', 'the whole cluster'],
        ['culvert status --namespace shop --all', 'each pod of one namespace'],
        ['culvert status -o json', 'for scripts'],
      ],
    })
      .option('-n, --namespace <name>', 'only this one')
      .option('--all', 'list pods that are enrolled, too')
      .addOption(outputOption())
      .addOption(jsonOption()),
  ).action(async (options: StatusOptions) => {
    const status = await inCluster(options, async ({ api }) => {
      const [{ surveyOf }, { SYSTEM_PODS }, { AGENT_SELECTOR }] = await Promise.all([
        import('./survey.ts'),
        import('./rollout.ts'),
        import('./session.ts'),
      ])
      const [survey, agents] = await Promise.all([
        surveyOf(api),
        api.list<Pod>(SYSTEM_PODS, { labelSelector: AGENT_SELECTOR }),
      ])
      return statusOf(survey, agents, options.namespace)
    })
    if (options.json || options.output === 'json') printJson(status)
    else print(textOf(status, options.all === true))
  })
}

export function statusOf(survey: Survey, agents: readonly Pod[], only?: string): ClusterStatus {
  const wanted = survey.pods.filter(
    ({ wanted, namespace }) => wanted.mesh && (only === undefined || namespace === only),
  )
  const isEnrolled = ({ observed }: SurveyedPod) => observed?.state === 'enrolled'
  return {
    nodes: survey.nodes
      .filter(({ status }) => status.nodeInfo.operatingSystem === 'linux')
      .map(({ metadata: { name } }) => {
        const own = wanted.filter(({ node }) => node === name)
        // During a rollout there are two: the one that serves counts.
        const its = agents.filter(
          ({ spec, metadata }) => spec.nodeName === name && !metadata.deletionTimestamp,
        )
        const agent = its.find(isReady) ?? its[0]
        const why = agent && !isReady(agent) ? troubleOf(agent) : undefined
        return {
          name,
          ...(agent && {
            agent: {
              pod: agent.metadata.name,
              image: agent.spec.containers[0]?.image ?? '',
              ready: isReady(agent),
              ...(why !== undefined && { why }),
            },
          }),
          enrolled: own.filter(isEnrolled).length,
          wanted: own.length,
        }
      }),
    namespaces: [...new Set(wanted.map(({ namespace }) => namespace))].sort().map(name => {
      const own = wanted.filter(({ namespace }) => namespace === name)
      const strict = own.filter(pod => pod.wanted.strictInbound).length
      const count = (state: string) => own.filter(({ observed }) => observed?.state === state).length
      return {
        name,
        mtls: strict === own.length ? 'strict' : strict === 0 ? 'permissive' : 'mixed',
        wanted: own.length,
        enrolled: count('enrolled'),
        pending: own.length - count('enrolled') - count('drifted'),
        drifted: count('drifted'),
      }
    }),
    pods: wanted.map(({ namespace, name, node, observed }) => ({
      namespace,
      name,
      node,
      state: observed?.state ?? 'unknown',
      detail: observed?.detail ?? '',
      ...(observed && { since: new Date(observed.sinceMs).toISOString() }),
    })),
  }
}

function textOf({ nodes, namespaces, pods }: ClusterStatus, isAll: boolean): string {
  const blocks = [
    table(
      [
        ['NODE', 'AGENT', 'IMAGE', 'ENROLLED'],
        ...nodes.map(({ name, agent, enrolled, wanted }) => [
          name,
          agent ? (agent.ready ? 'ready' : `not ready${agent.why ? `: ${agent.why}` : ''}`) : 'none',
          agent?.image ?? '',
          `${enrolled} of ${wanted}`,
        ]),
      ],
      (cell, column) => (column === 1 ? styled(cell === 'ready' ? 'green' : 'red', cell) : cell),
    ),
  ]
  if (namespaces.length === 0)
    blocks.push('no pod is meant to be in the mesh: kubectl annotate namespace NAME culvert.dev/mesh=enabled')
  else
    blocks.push(
      table([
        ['NAMESPACE', 'PLAINTEXT', 'ENROLLED', 'PENDING', 'DRIFTED'],
        ...namespaces.map(({ name, mtls, wanted, enrolled, pending, drifted }) => [
          name,
          { strict: 'refused', permissive: 'taken', mixed: 'by pod' }[mtls],
          `${enrolled} of ${wanted}`,
          String(pending),
          String(drifted),
        ]),
      ]),
    )
  const listed = pods.filter(({ state }) => isAll || state !== 'enrolled')
  if (listed.length > 0)
    blocks.push(
      table(
        [
          ['NAMESPACE', 'POD', 'NODE', 'STATE', 'WHY'],
          ...listed.map(({ namespace, name, node, state, detail }) => [namespace, name, node, state, detail]),
        ],
        (cell, column) => (column === 3 ? styled(cell === 'enrolled' ? 'green' : 'yellow', cell) : cell),
      ),
    )
  return blocks.join('\n\n')
}
