/** The control plane and the data plane of the lab: the ca-server and each node's agent, and their tokens. */
import { errorText } from '../../lib/errors.ts'
import { AGENT_NAMESPACE, AGENT_SERVICE_ACCOUNT } from '../cluster/nodes.ts'
import { replaceFile } from '../files.ts'
import { logPath, netnsName, nodePaths } from '../names.ts'
import { inNetnsArgv } from '../net/namespaces.ts'
import { CONTROL_PLANE_IPS } from '../net/plan.ts'
import { NodeAgent } from './agents.ts'
import { partRestartDelayMs, programArgv, programEnv, type LabContext } from './context.ts'
import { KeptProcess } from './kept-process.ts'
import { TOKEN_AUDIENCE, TOKEN_ISSUER, TOKEN_RENEWAL_MS, TokenSigner } from './tokens.ts'

export class Parts {
  readonly caServer: KeptProcess
  readonly agents: ReadonlyMap<string, NodeAgent>
  readonly #context: LabContext
  readonly #signer: TokenSigner
  #renewal: NodeJS.Timeout | undefined

  private constructor(context: LabContext, signer: TokenSigner) {
    this.#context = context
    this.#signer = signer
    this.caServer = caServerOf(context)
    this.agents = new Map(
      context.cluster.nodes
        .filter(node => !context.cluster.isForeign(node.name))
        .map(node => [node.name, new NodeAgent(node, context)]),
    )
  }

  /** Makes keys and tokens; starts nothing. The directories are there. */
  static async create(context: LabContext): Promise<Parts> {
    const signer = await TokenSigner.create()
    replaceFile(context.paths.jwks, signer.jwks)
    const parts = new Parts(context, signer)
    await parts.#writeTokens()
    return parts
  }

  processes(): KeptProcess[] {
    return [this.caServer, ...[...this.agents.values()].flatMap(agent => agent.processes())]
  }

  start(): void {
    this.#renewal = setInterval(() => {
      this.#writeTokens().catch((err: unknown) =>
        this.#context.warn(`tokens could not be renewed: ${errorText(err)}`),
      )
    }, TOKEN_RENEWAL_MS)
    this.caServer.start()
    for (const agent of this.agents.values()) agent.start()
  }

  async stop(graceMs: number): Promise<void> {
    clearInterval(this.#renewal)
    await Promise.all([...this.agents.values()].map(agent => agent.stop(graceMs)))
    await this.caServer.stop('SIGTERM', graceMs)
  }

  async #writeTokens(): Promise<void> {
    const { cluster, paths } = this.#context
    const account = cluster.get(`ServiceAccount ${AGENT_NAMESPACE}/${AGENT_SERVICE_ACCOUNT}`)
    for (const { name } of cluster.nodes) {
      const agent = cluster.agent(name)
      const token = await this.#signer.sign({
        node: name,
        nodeUid: agent.nodeUid,
        pod: agent.name,
        podUid: agent.uid,
        serviceAccountUid: account?.metadata.uid ?? '',
      })
      replaceFile(nodePaths(paths, name).token, token, 0o600)
    }
  }
}

function caServerOf({ settings, paths, processesChanged }: LabContext): KeptProcess {
  return new KeptProcess({
    name: 'ca-server',
    argv: inNetnsArgv(netnsName(settings.name, 'cp'), programArgv('ca-server/main.ts')),
    env: {
      ...programEnv(),
      LISTEN_PORT: '15012',
      METRICS_PORT: '15014',
      DATA_DIR: paths.ca,
      WORLD_FILE: paths.cluster,
      TRUST_DOMAIN: settings.trustDomain,
      CLUSTER_ID: 'Kubernetes',
      JWKS_FILE: paths.jwks,
      TOKEN_ISSUER,
      TOKEN_AUDIENCE,
      ROOT_OUT: paths.root,
      SERVER_IPS: CONTROL_PLANE_IPS.join(','),
      LOG_LEVEL: settings.logLevel,
      ...(settings.certTtl === undefined ? {} : { DEFAULT_TTL: settings.certTtl, MAX_TTL: settings.certTtl }),
    },
    logFile: logPath(paths, 'ca-server'),
    restartDelayMs: partRestartDelayMs,
    changed: processesChanged,
  })
}
