/** haproxy in TCP mode on both sides. Threads, session tickets and everything else as they are by default. */
import { run } from '../../lab/run.ts'
import type { PodName } from '../world.ts'
import type { Arm } from './arm.ts'
import { SERVER_NAME, tlsProxyArm, type ProxyFiles, type ProxyPort } from './tls-proxy.ts'

export function haproxyArm(): Arm {
  return tlsProxyArm({
    name: 'haproxy',
    tools: ['haproxy'],
    find: async () => {
      const { stdout } = await run(['haproxy', '-v'])
      return { version: /version (\S+)/.exec(stdout.toString())?.[1] ?? 'unknown' }
    },
    configName: 'haproxy.cfg',
    config: haproxyConfig,
    argv: (_, dir) => ['haproxy', '-db', '-f', `${dir}/haproxy.cfg`],
    workers: 1,
  })
}

function haproxyConfig(side: PodName, files: ProxyFiles, ports: readonly ProxyPort[]): string {
  const identity = `crt ${files.both} ca-file ${files.root} verify required`
  const bind = side === 'server' ? ` ssl ${identity} ssl-min-ver TLSv1.3` : ''
  const target = side === 'client' ? ` ssl ${identity} verifyhost ${SERVER_NAME} ssl-min-ver TLSv1.3` : ''
  const listen = (port: ProxyPort) => `listen port-${port.listen}
  bind *:${port.listen}${bind}
  server app ${port.target}${target}
`
  return `defaults
  mode tcp
  backlog 4096
  timeout connect 5s
  timeout client 1h
  timeout server 1h
${ports.map(listen).join('')}`
}
