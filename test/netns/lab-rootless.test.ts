import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { run } from '../../lab/run.ts'

/** An ordinary user, as far as the kernel cares: nobody. */
const AS_NOBODY = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--']

const PROJECT = fileURLToPath(new URL('../..', import.meta.url))

const probe = await run([...AS_NOBODY, 'unshare', '--user', '--map-root-user', '--net', 'true'])
const skip = probe.code === 0 ? false : `this machine refuses user namespaces: ${probe.stderr.trim()}`

await t.test('an ordinary user has the same lab, mesh and all', { skip }, async t => {
  const tmp = mkdtempSync(join(tmpdir(), 'culvert-rootless-'))
  chmodSync(tmp, 0o777)
  t.teardown(() => rmSync(tmp, { recursive: true, force: true }))
  // Where the project lies may be closed to others, below /root for instance: this user sees it in a place of its own.
  const project = join(tmp, 'culvert')
  mkdirSync(project)
  const here = (path: string) => (path.startsWith(PROJECT) ? join(project, path.slice(PROJECT.length)) : path)
  // A clean environment: tap's own asks every program to write where this user may not.
  const env = ['env', '-i', `PATH=${process.env['PATH']}`, `HOME=${tmp}`, `TMPDIR=${tmp}`]
  const program = [here(process.execPath), join(project, 'test/helpers/rootless-lab.ts'), `r${process.pid}`]
  const mounted = [
    'unshare',
    '--mount',
    'sh',
    '-c',
    'mount --bind "$0" "$1" && shift && exec "$@"',
    PROJECT,
    project,
  ]
  const ran = await run([...mounted, ...AS_NOBODY, ...env, ...program])
  t.equal(ran.code, 0, ran.stderr)
  t.match(JSON.parse(ran.stdout.toString()), {
    rootless: true,
    mesh: { client: 'enrolled', server: 'enrolled', 'server-2': 'enrolled', old: 'not-enrolled' },
    seenBy: [
      { pod: 'server', client: /^10\.98\.1\.2:/ },
      { pod: 'server', client: /^\[fd98:1::2\]:/ },
    ],
    isPlain: false,
    exit: 9,
    down: 'down',
    isGone: true,
  })
  const left = await run(['pgrep', '-u', '65534', '-f', tmp])
  t.equal(left.stdout.toString(), '', 'no process is left')
})
