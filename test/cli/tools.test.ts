import { chmodSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { ALL_TOOLS, TEST_TOOLS, missingError, missingTools, packagesOf } from '../../cli/setup/tools.ts'
import { run } from '../../lab/run.ts'

await t.test('a tool is missing when no directory of the path has it as a program', async t => {
  const dir = t.testdir({ ip: '', tcpdump: '', iptables: '' })
  chmodSync(join(dir, 'ip'), 0o755)
  symlinkSync(join(dir, 'ip'), join(dir, 'nsenter'))
  chmodSync(join(dir, 'tcpdump'), 0o644)
  t.strictSame(missingTools(['ip', 'nsenter', 'tcpdump', 'unshare'], `/nonexistent:${dir}`), [
    'tcpdump',
    'unshare',
  ])
})

await t.test('what is missing is told with the command that gets it, each package once', async t => {
  t.strictSame(packagesOf(['iptables', 'ip6tables', 'ip']), ['iptables', 'iproute2'])
  t.match(missingError(['ip', 'iptables', 'ip6tables']), {
    code: 'TOOL',
    message: 'ip, iptables, ip6tables are not installed',
    hint: /apt-get install -y iproute2 iptables/,
  })
  for (const tool of TEST_TOOLS) t.equal(packagesOf([tool]).length, 1, tool)
})

await t.test('a file is missing when it is not there', async t => {
  const dir = t.testdir({ 'module.py': '' })
  const files = [join(dir, 'module.py'), join(dir, 'other.py')]
  t.strictSame(missingTools(files), [files[1]])
})

await t.test('who runs Culvert needs less than who tests it', async t => {
  t.ok(ALL_TOOLS.includes('iptables') && ALL_TOOLS.includes('tcpdump'))
  t.notOk(ALL_TOOLS.includes('go') || ALL_TOOLS.includes('nghttp'))
  t.ok(ALL_TOOLS.every(tool => TEST_TOOLS.includes(tool)))
})

await t.test('checking says nothing when nothing is missing, and starts nothing', async t => {
  const program = fileURLToPath(new URL('../../cli/setup/tools.ts', import.meta.url))
  // An apt-get that tells on itself.
  const dir = t.testdir({})
  writeFileSync(join(dir, 'apt-get'), '#!/bin/sh\necho apt-get was started >&2\nexit 1\n', { mode: 0o755 })
  const env = { ...process.env, PATH: `${dir}:${process.env['PATH']}` }
  for (const args of [[], ['--check']])
    t.match(await run([process.execPath, program, ...args], { env }), { code: 0, stderr: '' })
})
