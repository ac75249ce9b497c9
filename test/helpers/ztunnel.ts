/**
 * A real ztunnel in a pod of the lab, in its dedicated mode: one process for one workload, redirected to by rules of our
 * own making (nothing of the agent's), with certificates and workloads from the lab's ca-server.
 */
import type { ChildProcess } from 'node:child_process'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { CulvertError } from '../../lib/errors.ts'
import { toolPath } from '../../lib/tool-path.ts'
import { startLab, type Lab, type StartOptions } from '../../lab/lab.ts'
import { nodePaths } from '../../lab/names.ts'
import { CONTROL_PLANE_IPS } from '../../lab/net/plan.ts'
import { runOk } from '../../lab/run.ts'
import { programArgv } from '../../lab/supervisor/context.ts'
import type { PodClientResult, Verb } from './pod-client.ts'
import { ProcessLog, type LogLine } from './process-log.ts'
import { findZtunnel } from './ztunnel-binary.ts'

export interface ZtunnelOptions {
  /** Who it is to be, as `namespace/pod/service account`. @default the pod that it runs in */
  readonly workload?: string
  /** Path of its token. @default the one of the pod's node */
  readonly token?: string
  /** More environment, or other. */
  readonly env?: Readonly<Record<string, string>>
  /** Do not wait until it is ready. @default false */
  readonly isHopeless?: boolean
}

/** What of its `config_dump` the tests look at. */
export interface ZtunnelState {
  readonly workloads: readonly {
    readonly name: string
    readonly namespace: string
    readonly protocol: string
    readonly workloadIps: readonly string[]
  }[]
  readonly services: readonly {
    readonly name: string
    readonly endpoints: Readonly<Record<string, unknown>>
  }[]
  readonly certificates: readonly {
    readonly identity: string
    readonly state: string
    readonly certChain?: readonly { readonly serialNumber: string }[]
  }[]
}

const LAB_FILE = fileURLToPath(new URL('../interop/lab.yaml', import.meta.url))

/**
 * Runs `test` with a lab of both worlds and a way to start ztunnels. Without a binary there is nothing to run: then one
 * test says so and holds that this is what is said.
 */
export async function withZtunnel(
  t: Test,
  options: StartOptions,
  test: (lab: Lab, start: (pod: string, options?: ZtunnelOptions) => Promise<Ztunnel>) => Promise<void>,
): Promise<void> {
  const found = await findZtunnel()
  if ('missing' in found) {
    t.comment(found.missing)
    t.match(found.missing, /^ztunnel not found: set ZTUNNEL_BIN/, 'the absence of a peer is said plainly')
    return
  }
  const name = `z${process.pid}`
  const lab = await startLab({ name, file: LAB_FILE, graceSeconds: 3, ...options })
  t.teardown(() => lab.down())
  await test(lab, async (pod, options = {}) => {
    const ztunnel = await Ztunnel.start(lab, found.binary, pod, options)
    t.teardown(() => ztunnel.stop())
    return ztunnel
  })
}

/** Runs one of `pod-client.ts`'s clients in a pod to its end. */
export async function inPod(
  lab: Lab,
  pod: string,
  verb: Verb,
  host: string,
  port: number,
  ...args: (string | number)[]
): Promise<PodClientResult> {
  const argv = [...programArgv('test/helpers/pod-client.ts'), verb, host, String(port), ...args.map(String)]
  const { code, stdout, stderr } = await lab.exec(pod, argv)
  if (code !== 0) throw new CulvertError('LAB', `${verb} from ${pod} ended with ${code}: ${stderr.trim()}`)
  return JSON.parse(stdout.toString()) as PodClientResult
}

export class Ztunnel {
  readonly pod: string
  readonly #lab: Lab
  readonly log: ProcessLog

  private constructor(lab: Lab, pod: string, process: ChildProcess) {
    this.#lab = lab
    this.pod = pod
    this.log = new ProcessLog(`ztunnel in ${pod}`, process)
  }

  /** Redirects the pod and starts a ztunnel there. Resolves when it is ready. Throws `LAB` when it is not in time. */
  static async start(lab: Lab, binary: string, pod: string, options: ZtunnelOptions): Promise<Ztunnel> {
    const { node, namespace, name, serviceAccount } = await lab.pod(pod)
    await redirect(lab, pod)
    const address = `https://${CONTROL_PLANE_IPS[0]}:15012`
    const child = await lab.spawn(pod, [binary, 'proxy', 'ztunnel'], {
      stdio: ['ignore', 'pipe', 'pipe'],
      // Away from any `./etc/istio`, which it would read.
      cwd: tmpdir(),
      env: {
        PATH: toolPath(),
        PROXY_MODE: 'dedicated',
        PROXY_WORKLOAD_INFO: options.workload ?? `${namespace}/${name}/${serviceAccount}`,
        PACKET_MARK: '1337',
        ENABLE_ORIG_SRC: 'true',
        NODE_NAME: node,
        CLUSTER_ID: 'Kubernetes',
        XDS_ADDRESS: address,
        CA_ADDRESS: address,
        XDS_ROOT_CA: lab.paths.root,
        CA_ROOT_CA: lab.paths.root,
        AUTH_TOKEN: options.token ?? nodePaths(lab.paths, node).token,
        ISTIO_META_DNS_CAPTURE: 'false',
        LOG_FORMAT: 'json',
        RUST_LOG: 'info',
        ...options.env,
      },
    })
    const ztunnel = new Ztunnel(lab, pod, child)
    if (!options.isHopeless)
      await ztunnel.log.line('that it is ready', ({ message }) =>
        /marking server ready/.test(String(message)),
      )
    return ztunnel
  }

  /** The line of an ended connection, past or future. */
  connection(direction: 'inbound' | 'outbound', target: string): Promise<LogLine> {
    return this.log.line(
      `that ${direction} ${target} was complete`,
      line => line['direction'] === direction && line['dst.hbone_addr'] === target,
    )
  }

  async state(): Promise<ZtunnelState> {
    const url = 'http://127.0.0.1:15000/config_dump'
    const { stdout } = await runOk(await this.#lab.podArgv(this.pod, ['curl', '-sS', '-m', '5', url]))
    return JSON.parse(stdout.toString()) as ZtunnelState
  }

  /** The HTTP status of its readiness. */
  async readiness(): Promise<number> {
    const url = 'http://127.0.0.1:15021/healthz/ready'
    const argv = ['curl', '-sS', '-m', '5', '-o', '/dev/null', '-w', '%{http_code}', url]
    return Number((await runOk(await this.#lab.podArgv(this.pod, argv))).stdout)
  }

  stop(): Promise<void> {
    return this.log.stop()
  }
}

/**
 * What leaves the pod goes to ztunnel's port 15001, but for what goes to the control plane and what ztunnel itself sends;
 * and answers to connections that it makes from a client's address come back to it. Tunnels come to 15008 by themselves.
 */
async function redirect(lab: Lab, pod: string): Promise<void> {
  for (const [family, restore, controlPlane] of [
    ['-4', 'iptables-restore', CONTROL_PLANE_IPS[0]],
    ['-6', 'ip6tables-restore', CONTROL_PLANE_IPS[1]],
  ] as const) {
    const rules = `*mangle
-F
-A PREROUTING -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff
-A OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
COMMIT
*nat
-F
-A OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT
-A OUTPUT -p tcp -d ${controlPlane} -j ACCEPT
-A OUTPUT -p tcp ! -o lo -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001
COMMIT
`
    await runOk(await lab.podArgv(pod, [restore, '--noflush', '-w', '5']), { input: rules })
    const batch =
      'rule add fwmark 0x111/0xfff pref 32764 lookup 100\nroute replace local default dev lo table 100\n'
    await runOk(await lab.podArgv(pod, ['ip', family, '-force', '-batch', '-']), { input: batch })
  }
}
