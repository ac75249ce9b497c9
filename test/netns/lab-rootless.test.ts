import { mkdtempSync, chmodSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { run } from '../../lab/run.ts'

/** An ordinary user, as far as the kernel cares: nobody. */
const AS_NOBODY = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--']

const probe = await run([...AS_NOBODY, 'unshare', '--user', '--map-root-user', '--net', 'true'])
const skip = probe.code === 0 ? false : `this machine refuses user namespaces: ${probe.stderr.trim()}`

await t.test('an ordinary user has the same lab, mesh and all', { skip }, async t => {
  const tmp = mkdtempSync(join(tmpdir(), 'culvert-rootless-'))
  chmodSync(tmp, 0o777)
  t.teardown(() => rmSync(tmp, { recursive: true, force: true }))
  const program = fileURLToPath(new URL('../helpers/rootless-lab.ts', import.meta.url))
  // A clean environment: tap's own asks every program to write where this user may not.
  const env = ['env', '-i', `PATH=${process.env['PATH']}`, `HOME=${tmp}`, `TMPDIR=${tmp}`]
  const ran = await run([...AS_NOBODY, ...env, process.execPath, program, `r${process.pid}`])
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
