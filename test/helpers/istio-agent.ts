/**
 * An agent of ours in a lab, on a node that the lab leaves alone, told of the mesh by a discovery server that knows an
 * istiod's types and none of Culvert's. Certificates come from the lab's ca-server.
 */
import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import type { Lab } from '../../lab/lab.ts'
import { nodePaths } from '../../lab/names.ts'
import { CONTROL_PLANE_IPS } from '../../lab/net/plan.ts'
import type { PodPlace } from '../../lab/status.ts'
import { programArgv } from '../../lab/supervisor/context.ts'
import { toolPath } from '../../lib/tool-path.ts'
import type { IstioListening, IstioResources } from './istio-discovery.ts'
import { policyBytes, uidOf, workloadBytes, workloadInit, type PolicyInit } from './mesh-world.ts'
import { ProcessLog } from './process-log.ts'

/** Starts it; resolves with what it says once its first pod is enrolled. All pods are said to take tunnels. */
export async function istioAgent(
  t: Test,
  lab: Lab,
  node: string,
  pods: readonly PodPlace[],
  policy: PolicyInit,
): Promise<ProcessLog> {
  const resources: IstioResources = {
    'type.googleapis.com/istio.workload.Address': Object.fromEntries(
      pods.map(({ name, namespace, node, ips }) => [
        uidOf(namespace, name),
        base64(workloadBytes(workloadInit({ name, namespace, ips: [...ips], more: { node } }))),
      ]),
    ),
    'type.googleapis.com/istio.security.Authorization': {
      [`${policy.namespace}/${policy.name}`]: base64(policyBytes(policy)),
    },
  }
  const discovery = onNode(t, lab, node, 'test/helpers/istio-discovery.ts', {}, JSON.stringify(resources))
  const said = await discovery.line('where it listens', line => 'port' in line)
  const { port, rootCa } = said as unknown as IstioListening
  const files = nodePaths(lab.paths, node)
  const rootFile = join(files.dir, 'istiod-root.pem')
  writeFileSync(rootFile, rootCa)
  const agent = onNode(t, lab, node, 'agent/main.ts', {
    NODE_NAME: node,
    XDS_ADDRESS: `https://localhost:${port}`,
    XDS_ROOT_CA: rootFile,
    CULVERT_TYPES: 'false',
    CA_ADDRESS: `https://${CONTROL_PLANE_IPS[0]}:15012`,
    CA_ROOT_CA: lab.paths.root,
    AUTH_TOKEN_FILE: files.token,
    POD_SOURCE: `static:${files.pods}`,
    RUN_DIR: files.agent,
  })
  await agent.line('that the pod is enrolled', line => line['state'] === 'enrolled')
  return agent
}

function onNode(
  t: Test,
  lab: Lab,
  node: string,
  program: string,
  env: Readonly<Record<string, string>>,
  input = '',
): ProcessLog {
  const [command = '', ...args] = lab.nodeArgv(node, programArgv(program))
  const child = spawn(command, args, { env: { PATH: toolPath(), ...env }, cwd: tmpdir() })
  child.stdin.on('error', () => undefined)
  child.stdin.end(input)
  const log = new ProcessLog(program, child)
  t.teardown(() => log.stop())
  return log
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64')
}
