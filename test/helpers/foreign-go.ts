/** Compiles the Go peer, once for each version of its source and of the compiler, from the standard library alone. */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, statSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { CulvertError } from '../../lib/errors.ts'
import { toolPath } from '../../lib/tool-path.ts'
import { runOk } from '../../lab/run.ts'

/** The program's path. Throws when there is no Go compiler, or the source does not compile. */
export async function goPeer(source: string): Promise<string> {
  // Of this user only, so that nobody else can put a program there.
  const dir = join(tmpdir(), `culvert-peers-${userInfo().uid}`)
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  if (statSync(dir).uid !== userInfo().uid)
    throw new CulvertError('DENIED', `${dir} belongs to another user`, { hint: 'remove it' })
  const env = {
    PATH: toolPath(),
    HOME: dir,
    GOCACHE: process.env['GOCACHE'] ?? join(process.env['HOME'] ?? dir, '.cache/go-build'),
    CGO_ENABLED: '0',
    GOPROXY: 'off',
    GOTOOLCHAIN: 'local',
    GOFLAGS: '',
  }
  const { stdout: version } = await runOk(['go', 'version'], { env })
  const hash = createHash('sha256').update(version).update(readFileSync(source)).digest('hex').slice(0, 16)
  const binary = join(dir, `peer-go-${hash}`)
  if (existsSync(binary)) return binary
  // Several test files may be at it: each makes its own, and whichever comes last replaces an equal one.
  const temporary = `${binary}.${process.pid}`
  // On a machine that has never compiled Go the whole library is compiled: without optimizing it takes half as long.
  const flags = ['-gcflags=all=-N -l -dwarf=false', '-ldflags=-s -w']
  await runOk(['go', 'build', ...flags, '-o', temporary, source], { env })
  renameSync(temporary, binary)
  return binary
}
