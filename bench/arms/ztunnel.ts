/**
 * A real ztunnel in each pod: its dedicated mode, one process for one workload, with workloads from a file and
 * certificates of its own test authority (the `testing` build). Like in a mesh it calls the application from the
 * client's address (`ENABLE_ORIG_SRC`), as our agents do.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import { missingTools } from '../../cli/setup/tools.ts'
import { runOk, run } from '../../lab/run.ts'
import { CulvertError } from '../../lib/errors.ts'
import { toolPath } from '../../lib/tool-path.ts'
import { findZtunnel } from '../../test/helpers/ztunnel-binary.ts'
import { BenchProcess } from '../process.ts'
import { NAMESPACE, type BenchPod, type World } from '../world.ts'
import type { Arm, ArmOptions, ArmSetup } from './arm.ts'
import { strangerOf } from './stranger.ts'

const HBONE_PORT = 15008

/** In both pods: answers of the application to a client's address come back to ztunnel. */
const RETURN_RULES = `*mangle
-A PREROUTING -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff
-A OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
COMMIT
`
const RETURN_ROUTES = `rule add fwmark 0x111/0xfff pref 32764 lookup 100
route add local default dev lo table 100
`
/** In the client's pod: what leaves goes to ztunnel, but for what ztunnel itself sends. */
const REDIRECT_RULES = `*nat
-A OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT
-A OUTPUT -p tcp ! -o lo -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001
COMMIT
`

export function ztunnelArm({ ztunnel, logLevel = 'warn' }: ArmOptions): Arm {
  let binary = ''
  return {
    name: 'ztunnel',
    tools: [],
    find: async () => {
      if (ztunnel !== undefined && missingTools([basename(ztunnel)], dirname(resolve(ztunnel))).length > 0)
        throw new CulvertError('INPUT', `--ztunnel is '${ztunnel}', which cannot be run`)
      const found = await findZtunnel(ztunnel === undefined ? {} : { env: { ZTUNNEL_BIN: resolve(ztunnel) } })
      if ('missing' in found) return { missing: `${found.missing}, or give --ztunnel PATH` }
      ;({ binary } = found)
      // It has no verb for this; it tells it together with the verbs that it has.
      const { stdout, stderr } = await run([binary, 'help'])
      const said = `${stdout.toString()}${stderr}`
      const version = /GitRevision:"([0-9a-f]{12})/.exec(said)?.[1]
      const crypto = /CryptoProvider:"([^"]+)"/.exec(said)?.[1]
      return version === undefined ? {} : { version: `${version}${crypto ? ` ${crypto}` : ''}` }
    },
    set: world => set(world, binary, logLevel),
  }
}

async function set(world: World, binary: string, logLevel: string): Promise<ArmSetup> {
  const mesh = join(world.paths.run, 'mesh.yaml')
  const workloads = `workloads:\n${[world.client, world.server].map(workload).join('')}services: []\npolicies: []\n`
  writeFileSync(mesh, workloads)
  const pods = [world.server, world.client]
  for (const { name } of pods) {
    await world.addRules(name, name === 'client' ? RETURN_RULES + REDIRECT_RULES : RETURN_RULES)
    await runOk(world.podArgv(name, ['ip', '-batch', '-']), { input: RETURN_ROUTES })
  }
  const envOf = (pod: BenchPod) => ({
    PROXY_MODE: 'dedicated',
    PROXY_WORKLOAD_INFO: `${NAMESPACE}/${pod.name}/${pod.name}`,
    PACKET_MARK: '1337',
    ENABLE_ORIG_SRC: 'true',
    NODE_NAME: pod.node,
    CLUSTER_ID: 'Kubernetes',
    XDS_ADDRESS: '',
    LOCAL_XDS_PATH: mesh,
    FAKE_CA: 'true',
    IPV6_ENABLED: 'false',
    ISTIO_META_DNS_CAPTURE: 'false',
    RUST_LOG: logLevel,
  })
  const envText = (pod: BenchPod) =>
    Object.entries(envOf(pod))
      .map(([name, value]) => `${name}=${value}\n`)
      .join('')
  const running: BenchProcess[] = []
  return {
    config: [
      ...pods.map(pod => `# environment, ${pod.name}\n${envText(pod)}`),
      `# ${mesh}\n${workloads}`,
      `# iptables-restore in both pods\n${RETURN_RULES}# ip -batch in both pods\n${RETURN_ROUTES}`,
      `# iptables-restore in the client's pod\n${REDIRECT_RULES}`,
    ].join('\n'),
    start: () => {
      const startedAtNs = process.hrtime.bigint()
      for (const pod of pods)
        running.push(
          new BenchProcess({
            name: `ztunnel of the ${pod.name}`,
            argv: world.podArgv(pod.name, [binary, 'proxy', 'ztunnel']),
            env: { PATH: toolPath(), ...envOf(pod) },
            // Away from any `./etc/istio`, which it would read.
            cwd: tmpdir(),
          }),
        )
      return {
        startedAtNs,
        agents: running.map(({ pid }, at) => ({ name: pods[at]!.name, pid })),
        // Its test authority is compiled into it.
        door: { port: HBONE_PORT, stranger: async () => strangerOf([readFileSync(binary, 'latin1')]) },
        check: () => {
          for (const each of running) each.check()
        },
      }
    },
    stop: async () => {
      // It would drain first; there is nothing to drain for.
      await Promise.all(running.map(each => each.stop('SIGKILL')))
    },
  }
}

function workload({ name, node, ip }: BenchPod): string {
  return `- uid: Kubernetes//Pod/${NAMESPACE}/${name}
  name: ${name}
  namespace: ${NAMESPACE}
  serviceAccount: ${name}
  trustDomain: cluster.local
  workloadIps: ["${ip}"]
  protocol: HBONE
  node: ${node}
  services: {}
`
}
