/**
 * The programs of others that the bench runs: which are there, and how the rest get there. As root with apt they are
 * installed; what is still missing then is named, and arms and metrics that need it are left out under that reason.
 */
import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { installPackages, missingTools } from '../cli/setup/tools.ts'
import { errorText } from '../lib/errors.ts'

interface Tool {
  readonly packages: readonly string[]
  /** What must be there beside the program. */
  readonly files?: readonly string[]
}

/** Where Debian's package puts nginx's stream module. */
export const NGINX_STREAM_MODULE = '/usr/lib/nginx/modules/ngx_stream_module.so'

const TOOLS: Readonly<Record<string, Tool>> = {
  nginx: { packages: ['nginx', 'libnginx-mod-stream'], files: [NGINX_STREAM_MODULE] },
  haproxy: { packages: ['haproxy'] },
  iperf3: { packages: ['iperf3'] },
  wrk: { packages: ['wrk'] },
  curl: { packages: ['curl'] },
}

/** A script that package scripts ask before they start a service (invoke-rc.d(8)); 101 is "not allowed". */
const SERVICE_POLICY = '/usr/sbin/policy-rc.d'

/**
 * Sees to it that the programs are there, as far as it can. Gives those that are not, each with the reason.
 * @param mayInstall whether packages may be installed at all
 */
export function ensureBenchTools(
  tools: readonly string[],
  mayInstall: boolean,
  progress: (text: string) => void,
): Map<string, string> {
  const wanted = tools.filter(tool => !isThere(tool))
  if (wanted.length === 0) return new Map()
  const isAble = process.getuid?.() === 0 && missingTools(['apt-get']).length === 0
  let failure = ''
  if (mayInstall && isAble) {
    const packages = wanted.flatMap(tool => TOOLS[tool]?.packages ?? [])
    progress(`installing ${packages.join(', ')}`)
    try {
      withoutServices(() => installPackages(packages))
    } catch (err) {
      failure = `; ${errorText(err)}`
    }
  }
  const why = (tool: string) =>
    `${tool} is not installed (Debian: ${TOOLS[tool]?.packages.join(', ')})${failure}`
  return new Map(wanted.filter(tool => !isThere(tool)).map(tool => [tool, why(tool)]))
}

function isThere(tool: string): boolean {
  return missingTools([tool]).length === 0 && (TOOLS[tool]?.files ?? []).every(file => existsSync(file))
}

/** The bench wants the programs, not a web server that begins to listen on this machine. */
function withoutServices(install: () => void): void {
  const isOurs = !existsSync(SERVICE_POLICY)
  if (isOurs) writeFileSync(SERVICE_POLICY, '#!/bin/sh\nexit 101\n', { mode: 0o755 })
  try {
    install()
  } finally {
    if (isOurs) rmSync(SERVICE_POLICY)
  }
}
