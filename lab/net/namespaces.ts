/**
 * Network namespaces of a lab in the kernel: making, filling, entering and removing them. Every program that
 * runs in one is started through nsenter, which becomes that program: its number and exit status are its own.
 */
import { readdirSync } from 'node:fs'
import { CulvertError, errorCode } from '../../lib/errors.ts'
import { NETNS_DIR, netnsPath, netnsPrefix } from '../names.ts'
import { run, runOk } from '../run.ts'

/** The command line that runs `argv` in a namespace. */
export function inNetnsArgv(netns: string, argv: readonly string[]): string[] {
  return ['nsenter', `--net=${netnsPath(netns)}`, '--', ...argv]
}

/** The names of a lab's namespaces that exist. */
export function listNetns(lab: string): string[] {
  try {
    return readdirSync(NETNS_DIR).filter(name => name.startsWith(netnsPrefix(lab)))
  } catch (err) {
    if (errorCode(err) === 'ENOENT') return []
    throw err
  }
}

/** Makes empty namespaces. Throws `DENIED` when this process may not, `LAB` when it fails otherwise. */
export async function addNetns(names: readonly string[]): Promise<void> {
  await batch(
    ['ip', '-batch', '-'],
    names.map(name => `netns add ${name}`),
  )
}

/** Removes the namespaces' names; each goes when the last process in it does. Missing ones are no error. */
export async function removeNetns(names: readonly string[]): Promise<void> {
  if (names.length === 0) return
  // -force goes on after a name that is already gone.
  await run(['ip', '-force', '-batch', '-'], { input: lines(names.map(name => `netns delete ${name}`)) })
}

/** Runs lines of `ip -batch` inside a namespace. Throws `LAB` naming the line that failed. */
export async function ipIn(netns: string, commands: readonly string[]): Promise<void> {
  await batch(inNetnsArgv(netns, ['ip', '-batch', '-']), commands)
}

/** Writes kernel settings (paths below /proc/sys/net) inside a namespace. */
export async function setSysctls(netns: string, values: Readonly<Record<string, string>>): Promise<void> {
  // Which namespace's settings a path below /proc/sys/net means depends on who opens it. Settings that this
  // kernel does not have are left out.
  const script =
    'cd /proc/sys/net; while read -r path value; do [ ! -e "$path" ] || echo "$value" >"$path"; done'
  const input = lines(Object.entries(values).map(([path, value]) => `${path} ${value}`))
  await runOk(inNetnsArgv(netns, ['sh', '-ec', script]), { input })
}

async function batch(argv: readonly string[], commands: readonly string[]): Promise<void> {
  const ran = await run(argv, { input: lines(commands) })
  if (ran.code === 0) return
  const said = ran.stderr.trim()
  if (/Operation not permitted|Permission denied/i.test(said))
    throw new CulvertError('DENIED', `network namespaces cannot be made here: ${said.split('\n')[0]}`, {
      hint: 'run as root, or where user namespaces are allowed',
    })
  const failed = /Command failed -:(\d+)/.exec(said)
  const line = failed ? `: 'ip ${commands[Number(failed[1]) - 1]}'` : ''
  throw new CulvertError(
    'LAB',
    `the lab's network could not be built${line}: ${said || `status ${ran.code}`}`,
  )
}

function lines(commands: readonly string[]): string {
  return commands.map(command => `${command}\n`).join('')
}
