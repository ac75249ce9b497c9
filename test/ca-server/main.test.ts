import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, watch, writeFileSync } from 'node:fs'
import { connect } from 'node:http2'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { stringifyManifest } from '../../lib/kube/manifest.ts'
import { temporaryDirectory } from '../helpers/ca-server.ts'
import { kubeNamespace } from '../helpers/kube-world.ts'

const MAIN = fileURLToPath(new URL('../../ca-server/main.ts', import.meta.url))

function run(
  t: Test,
  args: string[],
  env: Record<string, string>,
): { child: ChildProcess; output: Promise<string[]> } {
  const child = spawn(process.execPath, [MAIN, ...args], { env: { PATH: process.env['PATH'], ...env } })
  t.teardown(() => child.kill('SIGKILL'))
  return { child, output: Promise.all([text(child.stdout), text(child.stderr)]) }
}

await t.test('it starts, says where, serves, and ends within two seconds of SIGTERM', async t => {
  const directory = temporaryDirectory(t)
  const file = (name: string) => join(directory, name)
  writeFileSync(file('cluster.yaml'), stringifyManifest([kubeNamespace('shop')]))
  writeFileSync(file('jwks.json'), '{"keys":[]}')
  const watcher = watch(directory)
  t.teardown(() => watcher.close())
  const { child, output } = run(t, [], {
    LISTEN_PORT: '0',
    METRICS_PORT: '0',
    LISTEN_ADDRESS: '127.0.0.1',
    DATA_DIR: directory,
    WORLD_FILE: file('cluster.yaml'),
    JWKS_FILE: file('jwks.json'),
    TOKEN_ISSUER: 'https://issuer',
    PORT_FILE: file('ports.json'),
    ROOT_OUT: file('root.pem'),
  })
  while (!existsSync(file('ports.json'))) await once(watcher, 'change')
  const { port, metricsPort } = JSON.parse(readFileSync(file('ports.json'), 'utf8')) as Record<string, number>
  const ready = await fetch(`http://127.0.0.1:${metricsPort}/healthz/ready`)
  t.strictSame([ready.status, await ready.text()], [200, 'ready\n'])
  t.match(
    await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text(),
    /citadel_server_root_cert_expiry/,
  )
  t.equal((await fetch(`http://127.0.0.1:${metricsPort}/other`)).status, 404)
  t.equal((await fetch(`http://127.0.0.1:${metricsPort}/metrics`, { method: 'POST' })).status, 405)

  const session = connect(`https://localhost:${port}`, { ca: readFileSync(file('root.pem')) })
  session.on('error', () => undefined)
  await once(session, 'connect')
  const startMs = performance.now()
  child.kill('SIGTERM')
  const [code, signal] = (await once(child, 'exit')) as [number | null, string | null]
  t.strictSame([code, signal], [0, null])
  t.ok(performance.now() - startMs < 2000)
  const [log, errors] = (await output) as [string, string]
  t.equal(errors, '')
  t.match(log, '"msg":"ca-server ready"')
  t.match(log, '"reason":"SIGTERM"')
  t.notMatch(log, 'PRIVATE KEY')
  session.destroy()
})

await t.test('what it cannot start with is said in a line, with the right exit status', async t => {
  const directory = temporaryDirectory(t)
  const needed = {
    WORLD_FILE: '/none',
    JWKS_FILE: join(directory, 'none'),
    TOKEN_ISSUER: 'x',
    DATA_DIR: directory,
  }
  const cases: [status: number, args: string[], env: Record<string, string>, message: RegExp][] = [
    [
      2,
      [],
      {},
      /^culvert ca-server: there is no cluster to serve: KUBECONFIG or WORLD_FILE is needed outside of a pod\n$/,
    ],
    [2, ['--wrong'], {}, /unknown argument '--wrong'; see --help/],
    [1, [], { ...needed, LOG_LEVEL: 'silent' }, /no such file or directory.*none/],
  ]
  for (const [status, args, env, message] of cases) {
    const { child, output } = run(t, args, env)
    const [code] = (await once(child, 'exit')) as [number]
    const [, errors] = (await output) as [string, string]
    t.equal(code, status)
    t.match(errors, message)
  }
})

await t.test('help and version need no settings', async t => {
  for (const [flag, pattern] of [
    ['--help', /usage: node ca-server\/main\.ts[^]*WORLD_FILE[^]*default: none/],
    ['--version', /^\d+\.\d+\.\d+\n$/],
  ] as const) {
    const { output, child } = run(t, [flag], {})
    const [code] = (await once(child, 'exit')) as [number]
    t.equal(code, 0)
    t.match((await output)[0], pattern)
  }
})
