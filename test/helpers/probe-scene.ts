/**
 * Run in namespaces of its own (processes, mounts, network): makes a pod's network namespace as an agent would have left it,
 * runs the program that cleans nodes there, and prints what was there before and after.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { closeSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { findHolder, startHolder } from '../../agent/pods/holder.ts'
import { PORT } from '../../agent/ports.ts'
import { applyRedirect, readCounters } from '../../agent/redirect/apply.ts'
import { returnRoutesDrift } from '../../agent/redirect/return-path.ts'
import { inNetns, openNetns } from '../../agent/sys/netns.ts'
import { listenTcp } from '../../agent/sys/socket.ts'

const PROBE = fileURLToPath(new URL('../../agent/probe/main.ts', import.meta.url))

mkdirSync('/run/netns', { recursive: true })
mkdirSync('/run/culvert', { recursive: true })
writeFileSync('/run/culvert/holders.json', '{"pods":{}}')
execFileSync('ip', ['netns', 'add', 'pod'])
execFileSync('ip', ['-n', 'pod', 'link', 'set', 'lo', 'up'])
const pod = openNetns('/run/netns/pod')
const listen = (port: number) => inNetns(pod, () => listenTcp({ port }))
const listeners = {
  outbound: listen(PORT.outbound),
  inbound: listen(PORT.inbound),
  hbone: listen(PORT.hbone),
}
startHolder(listeners, () => undefined)
Object.values(listeners).forEach(closeSync)
await applyRedirect(pod, {
  strictInbound: true,
  requireOutbound: true,
  excludeInboundPorts: [],
  excludeOutboundPorts: [],
  excludeOutboundCidrs: [],
})
const look = async () => ({
  rules: Object.keys(await readCounters(pod)).length,
  missingRoutes: returnRoutesDrift(pod).length,
  isHeld: findHolder(pod) !== undefined,
  files: readdirSync('/run/culvert'),
})

const before = await look()
const { stdout } = spawnSync(process.execPath, ['--disable-warning=ExperimentalWarning', PROBE, 'clean'], {
  encoding: 'utf8',
  env: { PATH: process.env['PATH'], NODE_NAME: 'n', KUBERNETES_SERVICE_HOST: '10.96.0.1' },
  stdio: ['ignore', 'pipe', 'inherit'],
})
process.stdout.write(
  `${JSON.stringify({ before, report: JSON.parse(stdout) as unknown, after: await look() })}\n`,
)
