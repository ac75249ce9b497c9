/** Whether what is installed does what it should: everywhere, in one version, for every pod that should be in the mesh. */
import { X509Certificate } from 'node:crypto'
import { errorText } from '../../lib/errors.ts'
import type { Finding } from '../../lib/finding.ts'
import { VERSION } from '../../lib/version.ts'
import type { KubeApi } from '../kubernetes/api.ts'
import { isReady, troubleOf, type KubeObject, type Pod } from '../kubernetes/objects.ts'
import { agentPods, askAgents } from './agents.ts'
import { MADE_BY_CA_SERVER } from './manifest.ts'
import { AGENTS_PATH, caServerPending, SYSTEM_PODS } from './rollout.ts'
import { CA_SELECTOR, AGENT_SELECTOR } from './session.ts'
import { wantedIn, type Survey, type SurveyedPod } from './survey.ts'

const DAY_MS = 86_400_000
const ROOT_WARN_DAYS = 60
const MOST_NAMED = 20

interface CertificateState {
  readonly identity: string
  readonly state: string
  readonly alarm: boolean
}

export async function isInstalled(api: KubeApi): Promise<boolean> {
  return (await api.get(AGENTS_PATH)) !== undefined
}

export async function checkInstallation(api: KubeApi, survey: Survey): Promise<Finding[]> {
  if (!(await isInstalled(api)))
    return [{ id: 'installed', state: 'fail', text: 'Culvert is not installed', hint: 'culvert install' }]
  const [agents, servers, pendingServer] = await Promise.all([
    api.list<Pod>(SYSTEM_PODS, { labelSelector: AGENT_SELECTOR }),
    api.list<Pod>(SYSTEM_PODS, { labelSelector: CA_SELECTOR }),
    caServerPending(api),
  ])
  return [
    pendingServer === undefined
      ? { id: 'ca-server', state: 'ok', text: `${servers.length} replicas of the ca-server are ready` }
      : {
          id: 'ca-server',
          state: 'fail',
          text: pendingServer,
          hint: 'kubectl -n culvert-system logs deployment/culvert-ca',
        },
    ...agentFindings(agents, survey),
    versionFinding([...agents, ...servers]),
    ...(await rootFindings(api)),
    ...podFindings(survey),
    ...(await certificateFindings(api)),
  ]
}

function agentFindings(agents: readonly Pod[], { nodes }: Survey): Finding[] {
  const linux = nodes.filter(({ status }) => status.nodeInfo.operatingSystem === 'linux')
  const without = linux
    .map(({ metadata }) => metadata.name)
    .filter(node => !agents.some(pod => pod.spec.nodeName === node && isReady(pod)))
  const findings = without.slice(0, MOST_NAMED).map((node): Finding => {
    const pod = agents.find(({ spec }) => spec.nodeName === node)
    return {
      id: 'agent',
      state: 'fail',
      text: `no agent is ready on ${node}${pod ? `: ${troubleOf(pod) ?? 'it is starting'}` : ''}`,
      hint: pod
        ? `kubectl -n culvert-system logs ${pod.metadata.name}`
        : 'kubectl -n culvert-system describe daemonset culvert-agent',
    }
  })
  if (without.length === 0)
    findings.push({ id: 'agent', state: 'ok', text: `an agent is ready on each of ${linux.length} nodes` })
  for (const { metadata, spec, status } of agents) {
    const restarts = (status.containerStatuses ?? []).reduce((sum, { restartCount }) => sum + restartCount, 0)
    if (restarts > 0)
      findings.push({
        id: 'agent/restarts',
        state: 'warn',
        text: `the container of the agent on ${spec.nodeName} was started again ${restarts} times`,
        hint: `kubectl -n culvert-system logs -p ${metadata.name}`,
      })
  }
  return findings
}

function versionFinding(pods: readonly Pod[]): Finding {
  const images = new Set(pods.flatMap(({ spec }) => spec.containers.map(({ image }) => image)))
  const text = `images: ${[...images].join(', ')}`
  if (images.size > 1)
    return {
      id: 'versions',
      state: 'warn',
      text: `not everything runs the same image: ${[...images].join(', ')}`,
      hint: 'an upgrade is under way, or one has stopped: kubectl -n culvert-system rollout status daemonset/culvert-agent',
    }
  // A name of somebody's own, or a digest, tells no version.
  const version = [...images].flatMap(image => /:v?(\d+\.\d+\.\d+)$/.exec(image)?.[1] ?? [])[0]
  return version === undefined || version === VERSION
    ? { id: 'versions', state: 'ok', text }
    : {
        id: 'versions',
        state: 'warn',
        text: `${text}; this command is ${VERSION}`,
        hint: 'use the command of the same version',
      }
}

async function rootFindings(api: KubeApi): Promise<Finding[]> {
  const map = await api.get<KubeObject & { data?: Record<string, string> }>(MADE_BY_CA_SERVER.roots)
  const pem = map?.data?.['root-cert.pem']
  if (!pem)
    return [
      {
        id: 'root',
        state: 'fail',
        text: 'the ca-server has not published its root (ConfigMap culvert-root)',
        hint: 'agents wait for it: kubectl -n culvert-system logs deployment/culvert-ca',
      },
    ]
  try {
    const ends = pem
      .split(/(?<=-----END CERTIFICATE-----)/)
      .filter(part => part.includes('BEGIN CERTIFICATE'))
      .map(part => new X509Certificate(part).validToDate.getTime())
    const days = Math.floor((Math.min(...ends) - Date.now()) / DAY_MS)
    return [
      {
        id: 'root',
        state: days < 0 ? 'fail' : days < ROOT_WARN_DAYS ? 'warn' : 'ok',
        text: `the first root to end has ${days} days left`,
        ...(days < ROOT_WARN_DAYS && { hint: 'agents must trust its successor before it ends' }),
      },
    ]
  } catch (err) {
    return [
      { id: 'root', state: 'fail', text: `ConfigMap culvert-root holds no certificate: ${errorText(err)}` },
    ]
  }
}

function podFindings(survey: Survey): Finding[] {
  const wanted = wantedIn(survey)
  const trouble = wanted.filter(({ observed }) => observed?.state !== 'enrolled')
  const findings = trouble.slice(0, MOST_NAMED).map(troubleFinding)
  if (trouble.length > MOST_NAMED)
    findings.push({
      id: 'pods',
      state: 'fail',
      text: `and ${trouble.length - MOST_NAMED} more pods are not enrolled`,
    })
  const text = `${wanted.length - trouble.length} of ${wanted.length} pods are enrolled`
  findings.push({ id: 'pods', state: trouble.length === 0 ? 'ok' : 'fail', text })
  return findings
}

function troubleFinding({ namespace, name, observed, pod }: SurveyedPod): Finding {
  const said = observed
    ? `${observed.state}${observed.detail && `: ${observed.detail}`}`
    : 'nobody has said anything of it yet'
  // One that has no address yet cannot be in any mesh.
  const isStarting = pod.status.podIP === undefined
  return {
    id: 'pods',
    state: isStarting ? 'warn' : 'fail',
    text: `${namespace}/${name}: ${isStarting ? 'is starting' : said}`,
    hint: `kubectl -n ${namespace} describe pod ${name}, and the log of the agent on ${pod.spec.nodeName}`,
  }
}

async function certificateFindings(api: KubeApi): Promise<Finding[]> {
  const answers = await askAgents<CertificateState[]>(api, await agentPods(api), '/certificates')
  const findings: Finding[] = []
  let valid = 0
  for (const { node, value = [], problem } of answers) {
    if (problem !== undefined)
      findings.push({
        id: 'certificates',
        state: 'warn',
        text: `the agent on ${node} could not be asked: ${problem}`,
        hint: 'this takes the right to forward ports of pods in culvert-system',
      })
    for (const { identity, state, alarm } of value)
      if (state !== 'valid' || alarm)
        findings.push({
          id: 'certificates',
          state: state === 'expired' ? 'fail' : 'warn',
          text: `${identity} on ${node}: ${state}${alarm ? ', less than a quarter of its life left' : ''}`,
          hint: 'the agent logs what the ca-server answered',
        })
      else valid++
  }
  return [
    ...findings.slice(0, MOST_NAMED),
    { id: 'certificates', state: 'ok', text: `${valid} certificates are valid` },
  ]
}
