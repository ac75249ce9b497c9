/**
 * Finding a real ztunnel to test against. It is no part of this repository: `ZTUNNEL_BIN` names one, or
 * `../shared/peers/ztunnel.xz` beside the project holds one (x86-64), which is unpacked once into a directory below the
 * system's temporary one. A machine without either still runs the whole suite: the tests of `test/interop` then say that
 * it is not there, and hold nothing else.
 */
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CulvertError } from '../../lib/errors.ts'
import { run } from '../../lab/run.ts'

export const NOT_FOUND = 'ztunnel not found: set ZTUNNEL_BIN'

const PEERS = fileURLToPath(new URL('../../../shared/peers/', import.meta.url))

export interface WhereToLook {
  /** @default process.env */
  readonly env?: NodeJS.ProcessEnv
  /** The directory with the packed binary. */
  readonly peers?: string
  /** Where it is unpacked to. */
  readonly cache?: string
  /** The program that unpacks it. @default xz */
  readonly xz?: string
}

export type Found = { readonly binary: string } | { readonly missing: string }

/** The binary, or why there is none. Throws `INPUT` when `ZTUNNEL_BIN` names something that cannot be run. */
export async function findZtunnel(where: WhereToLook = {}): Promise<Found> {
  const { env = process.env, peers = PEERS, cache = cacheDir(), xz = 'xz' } = where
  const named = env['ZTUNNEL_BIN']
  if (named) {
    checkExecutable(named)
    return { binary: named }
  }
  const packed = join(peers, 'ztunnel.xz')
  if (process.arch !== 'x64' || !existsSync(packed)) return { missing: NOT_FOUND }
  if (!(await canRun(xz))) return { missing: `${NOT_FOUND}, or install ${xz} to unpack ${packed}` }
  return { binary: await unpacked(packed, cache, xz) }
}

function checkExecutable(path: string): void {
  try {
    accessSync(path, constants.X_OK)
  } catch (err) {
    throw new CulvertError('INPUT', `ZTUNNEL_BIN is '${path}', which cannot be run`, { cause: err })
  }
}

/** Reports whether a program is there. */
export async function canRun(program: string): Promise<boolean> {
  return run([program, '--version']).then(
    () => true,
    () => false,
  )
}

/** Of this user only, so that nobody else can put a program there. */
function cacheDir(): string {
  return join(tmpdir(), `culvert-peers-${userInfo().uid}`)
}

async function unpacked(packed: string, cache: string, xz: string): Promise<string> {
  mkdirSync(cache, { recursive: true, mode: 0o700 })
  const { uid } = statSync(cache)
  if (uid !== userInfo().uid)
    throw new CulvertError('DENIED', `${cache} belongs to another user (${uid})`, { hint: 'remove it' })
  const { size, mtimeMs } = statSync(packed)
  const binary = join(cache, `ztunnel-${size}-${Math.round(mtimeMs)}`)
  if (existsSync(binary)) return binary
  const { code, stdout, stderr } = await run([xz, '--decompress', '--stdout', packed])
  if (code !== 0) throw new CulvertError('TOOL', `${packed} could not be unpacked: ${stderr.trim()}`)
  // Several test files may be at it: each writes its own, and whichever comes last replaces an equal one.
  const temporary = `${binary}.${process.pid}`
  try {
    writeFileSync(temporary, stdout, { mode: 0o700, flag: 'wx' })
    renameSync(temporary, binary)
  } finally {
    rmSync(temporary, { force: true })
  }
  return binary
}
