import { fileURLToPath } from 'node:url'
import t from 'tap'
import { pluginTypes } from '../../agent/probe/runtime.ts'
import { run } from '../../lab/run.ts'
import { parseNodeReport } from '../../lib/finding.ts'

const PROBE = fileURLToPath(new URL('../../agent/probe/main.ts', import.meta.url))
const SCENE = fileURLToPath(new URL('../helpers/probe-scene.ts', import.meta.url))
const NODE = [process.execPath, '--disable-warning=ExperimentalWarning']
/** Nothing of the machine's is to be seen there: no other network namespace, no other process, no /run. */
const ALONE = 'mount -t tmpfs none /run && exec "$@"'

await t.test('what the agent does can be tried on this machine, and is', async t => {
  const { code, stdout, stderr } = await run(
    [
      'unshare',
      '--mount',
      '--pid',
      '--fork',
      '--mount-proc',
      '--net',
      'sh',
      '-c',
      ALONE,
      'sh',
      ...NODE,
      PROBE,
      'check',
    ],
    { env: { ...process.env, NODE_NAME: 'here' } },
  )
  t.equal(code, 0, stderr)
  const { node, findings } = parseNodeReport(stdout.toString())
  t.equal(node, 'here')
  for (const id of [
    'kernel',
    'netns',
    'iptables',
    'rules',
    'transparent',
    'listeners',
    'zones',
    'takeover',
    'yama',
    'neighbours',
  ])
    t.match(
      findings.find(finding => finding.id === id),
      { state: 'ok' },
      id,
    )
  t.match(
    findings.find(({ id }) => id === 'nri'),
    { state: 'warn', hint: /containerd 1\.7/ },
    'there is none here',
  )
})

await t.test('cleaning leaves neither rules nor routes, sockets or files', async t => {
  const { code, stdout, stderr } = await run([
    'unshare',
    '--mount',
    '--pid',
    '--fork',
    '--mount-proc',
    '--net',
    'sh',
    '-c',
    ALONE,
    'sh',
    ...NODE,
    SCENE,
  ])
  t.equal(code, 0, stderr)
  const { before, report, after } = JSON.parse(stdout.toString()) as Record<
    'before' | 'after' | 'report',
    object
  >
  t.match(before, { rules: /^[1-9]/, missingRoutes: 0, isHeld: true, files: ['holders.json'] })
  t.match(report, {
    node: 'n',
    findings: [{ id: 'clean', state: 'ok', text: '1 pods had rules, 1 sockets were held' }],
  })
  t.match(after, { rules: 0, missingRoutes: /^[1-9]/, isHeld: false, files: [] })
})

await t.test('it cleans nothing where it is not a pod, and does nothing that it does not know', async t => {
  const env = { ...process.env }
  delete env['KUBERNETES_SERVICE_HOST']
  t.match(await run([...NODE, PROBE, 'clean'], { env }), { code: 2, stderr: /nothing is cleaned here/ })
  t.match(await run([...NODE, PROBE]), { code: 2, stderr: /usage/ })
  t.match(await run([...NODE, PROBE, 'check', 'more']), { code: 2 })
})

await t.test('CNI plugins are read of both kinds of files, and of nothing else', async t => {
  t.strictSame(pluginTypes('{"type":"bridge"}'), ['bridge'])
  t.strictSame(pluginTypes('{"plugins":[{"type":"ptp"},{"type":"istio-cni"},{}]}'), ['ptp', 'istio-cni'])
  for (const text of ['', '[', 'null', '{"plugins":7}', '{"type":["x"]}', '{"type":"a b"}'])
    t.strictSame(pluginTypes(text), [], text)
})
