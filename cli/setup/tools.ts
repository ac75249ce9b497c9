/**
 * The system programs that Culvert needs on a Linux machine: which are missing, and how they get there. As root
 * with apt they are installed; otherwise the command to run is named. Nothing is started when nothing is missing.
 *
 *   node cli/setup/tools.ts            installs what is missing for the tests, or says how
 *   node cli/setup/tools.ts --check    only says
 */
import { spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync } from 'node:fs'
import { join } from 'node:path'
import { CulvertError, errorText } from '../../lib/errors.ts'
import { toolEnv, toolPath } from '../../lib/tool-path.ts'

type Packages = Readonly<Record<string, string>>

/** Programs, and the Debian package that has each. */
const OWN: Packages = {
  ip: 'iproute2',
  iptables: 'iptables',
  ip6tables: 'iptables',
  'iptables-restore': 'iptables',
  'ip6tables-restore': 'iptables',
  nsenter: 'util-linux',
  unshare: 'util-linux',
  mount: 'mount',
  tcpdump: 'tcpdump',
  curl: 'curl',
}

/** Implementations of TLS and HTTP/2 that the tests hold ours against: programs, or paths of files. */
const PEERS: Packages = {
  '/usr/bin/python3': 'python3',
  '/usr/lib/python3/dist-packages/h2/__init__.py': 'python3-h2',
  nghttp: 'nghttp2-client',
  h2load: 'nghttp2-client',
  nghttpd: 'nghttp2-server',
  go: 'golang-go',
  openssl: 'openssl',
}

/** What the tests and the short run of the bench in them do things with. */
const TOOLS: Packages = {
  nft: 'nftables',
  'iptables-legacy': 'iptables',
  'ip6tables-legacy': 'iptables',
  setpriv: 'util-linux',
  sysctl: 'procps',
  pgrep: 'procps',
  iperf3: 'iperf3',
  xz: 'xz-utils',
}

const PACKAGE_OF: Packages = { ...OWN, ...PEERS, ...TOOLS }

/** What Culvert itself needs. */
export const ALL_TOOLS: readonly string[] = Object.keys(OWN)

/** What its tests need. */
export const TEST_TOOLS: readonly string[] = Object.keys(PACKAGE_OF)

/** What a lab cannot be built without. */
export const LAB_TOOLS: readonly string[] = ALL_TOOLS.filter(tool => tool !== 'tcpdump' && tool !== 'curl')

/** Exit status of a program that lacks another one (sysexits.h: EX_UNAVAILABLE). */
const EX_UNAVAILABLE = 69

/** The programs of the list that are on no path, and the files that are not there. */
export function missingTools(tools: readonly string[], path: string = toolPath()): string[] {
  const dirs = path.split(':').filter(dir => dir !== '')
  return tools.filter(tool =>
    tool.startsWith('/') ? !existsSync(tool) : !dirs.some(dir => isExecutable(join(dir, tool))),
  )
}

/** The Debian packages that have these programs, each once. */
export function packagesOf(tools: readonly string[]): string[] {
  return [...new Set(tools.flatMap(tool => PACKAGE_OF[tool] ?? []))]
}

/**
 * Sees to it that the programs are there; `progress` is told when that takes an installation.
 * Throws `TOOL` naming what is missing, with the command that gets it.
 */
export function ensureTools(tools: readonly string[] = ALL_TOOLS, progress = tellOperator): void {
  const missing = missingTools(tools)
  if (missing.length === 0) return
  const packages = packagesOf(missing)
  if (process.getuid?.() === 0 && missingTools(['apt-get']).length === 0) {
    progress(`installing ${packages.join(', ')}`)
    installPackages(packages)
    const still = missingTools(tools)
    if (still.length === 0) return
    throw missingError(still)
  }
  throw missingError(missing)
}

export function missingError(missing: readonly string[]): CulvertError {
  return new CulvertError(
    'TOOL',
    `${missing.join(', ')} ${missing.length > 1 ? 'are' : 'is'} not installed`,
    {
      hint: `install with: sudo apt-get install -y ${packagesOf(missing).join(' ')} (or your system's packages that have them)`,
    },
  )
}

function tellOperator(text: string): void {
  process.stderr.write(`culvert: ${text}\n`)
}

/**
 * Installs Debian packages, as root. A machine that was never updated has no package lists, or old ones: they are fetched
 * when a first try fails. Throws `TOOL`.
 */
export function installPackages(packages: readonly string[]): void {
  const env = { ...toolEnv(), DEBIAN_FRONTEND: 'noninteractive' }
  const apt = (...args: string[]) => spawnSync('apt-get', ['-qq', ...args], { env, encoding: 'utf8' })
  const add = () => apt('install', '-y', '--no-install-recommends', ...packages)
  if (add().status === 0) return
  apt('update')
  const again = add()
  if (again.status !== 0)
    throw new CulvertError('TOOL', `${packages.join(', ')} could not be installed: ${again.stderr.trim()}`, {
      hint: `see for yourself: apt-get install ${packages.join(' ')}`,
    })
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

function main(): void {
  const isCheck = process.argv.includes('--check')
  try {
    const missing = isCheck ? missingTools(TEST_TOOLS) : []
    if (missing.length > 0) throw missingError(missing)
    if (!isCheck) ensureTools(TEST_TOOLS)
  } catch (err) {
    process.stderr.write(`culvert: ${errorText(err)}\n`)
    if (err instanceof CulvertError && err.hint) process.stderr.write(`hint: ${err.hint}\n`)
    process.exitCode = EX_UNAVAILABLE
  }
}

if (import.meta.main) main()
