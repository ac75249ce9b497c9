/** nginx with its stream module on both sides. Session tickets and everything else as they are by default. */
import { run } from '../../lab/run.ts'
import { NGINX_STREAM_MODULE } from '../tools.ts'
import type { Arm } from './arm.ts'
import { SERVER_NAME, tlsProxyArm, type ProxyFiles, type ProxyPort } from './tls-proxy.ts'
import type { PodName } from '../world.ts'
import { machineCores } from '../machine.ts'

export function nginxArm(): Arm {
  return tlsProxyArm({
    name: 'nginx',
    tools: ['nginx'],
    find: async () => {
      const { stderr } = await run(['nginx', '-v'])
      return { version: /nginx\/(\S+)/.exec(stderr)?.[1] ?? 'unknown' }
    },
    configName: 'nginx.conf',
    config: nginxConfig,
    // -p and -e: nothing of the machine's own nginx is read or written.
    argv: (_, dir) => ['nginx', '-p', dir, '-e', 'stderr', '-c', `${dir}/nginx.conf`, '-g', 'daemon off;'],
    workers: machineCores(),
  })
}

function nginxConfig(side: PodName, files: ProxyFiles, ports: readonly ProxyPort[]): string {
  const server = ({ listen, target }: ProxyPort) =>
    side === 'client'
      ? `  server { listen ${listen} backlog=4096; proxy_pass ${target}; proxy_ssl on; }\n`
      : `  server { listen ${listen} ssl backlog=4096; proxy_pass ${target}; }\n`
  const tls =
    side === 'client'
      ? `  proxy_ssl_certificate ${files.certificate};
  proxy_ssl_certificate_key ${files.key};
  proxy_ssl_trusted_certificate ${files.root};
  proxy_ssl_verify on;
  proxy_ssl_name ${SERVER_NAME};
  proxy_ssl_protocols TLSv1.3;
`
      : `  ssl_certificate ${files.certificate};
  ssl_certificate_key ${files.key};
  ssl_client_certificate ${files.root};
  ssl_verify_client on;
  ssl_protocols TLSv1.3;
`
  return `load_module ${NGINX_STREAM_MODULE};
user root;
worker_processes auto;
pid ${files.dir}/nginx.pid;
events { worker_connections 40000; }
stream {
  proxy_timeout 1h;
${tls}${ports.map(server).join('')}}
`
}
