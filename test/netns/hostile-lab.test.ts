import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { DEFAULT_LAB_FILE } from '../../lab/client/start.ts'
import { readLabFile } from '../../lab/cluster/lab-file.ts'
import { accessLog, httpGet, podNamed, until } from '../../lab/demo/facts.ts'
import { labPaths, logPath, netnsName } from '../../lab/names.ts'
import { run } from '../../lab/run.ts'
import type { Lab } from '../../lab/lab.ts'
import { errorText } from '../../lib/errors.ts'
import { labFor } from '../helpers/lab.ts'

const CULVERT = new URL('../../cli/main.ts', import.meta.url).pathname

function saidOf(file: string): string {
  try {
    readLabFile(file)
    return 'nothing'
  } catch (err) {
    return errorText(err)
  }
}

await t.test(
  'a lab file that is wrong is refused with every place that is wrong, and nothing is built',
  async t => {
    const dir = t.testdir({})
    const name = `bad${process.pid}`
    const pod = (more: string, metadata = '') =>
      `{ apiVersion: v1, kind: Pod, metadata: { name: p, namespace: default ${metadata} }, spec: { containers: [{ name: c, command: [sleep, infinity] }] ${more} } }`
    const cases: [what: string, text: string | Buffer, problems: RegExp[]][] = [
      ['no YAML', 'kind: [Pod\n  a: b', [/document 1: not YAML at line \d+, column \d+/]],
      ['binary', randomBytes(2000), [/lab\.yaml: /]],
      ['text', 'just some words', [/document 1: /]],
      ['a list', '- kind: Pod', [/document 1: /]],
      ['no kind', 'apiVersion: v1', [/kind is required/]],
      [
        'another kind',
        '{ apiVersion: apps/v1, kind: Deployment, metadata: { name: d } }',
        [/'Deployment'.*not understood/],
      ],
      ['another version', '{ apiVersion: v2, kind: Pod, metadata: { name: p } }', [/apiVersion is 'v2'/]],
      ['no name', '{ apiVersion: v1, kind: Node, metadata: {} }', [/metadata\.name is required/]],
      [
        'a bad name',
        '{ apiVersion: v1, kind: Node, metadata: { name: "../../etc" } }',
        [/metadata\.name.*\.\.\/\.\.\/etc/],
      ],
      [
        'a word for a list',
        '{ apiVersion: v1, kind: Pod, metadata: { name: p, namespace: default }, spec: { containers: x } }',
        [/spec\.containers/],
      ],
      [
        'no containers',
        '{ apiVersion: v1, kind: Pod, metadata: { name: p, namespace: default }, spec: {} }',
        [/spec\.containers/],
      ],
      [
        'a node that is not there',
        `{ apiVersion: v1, kind: Node, metadata: { name: n } }\n---\n${pod(', nodeName: m')}`,
        [/node 'm' does not exist/],
      ],
      [
        'a namespace that is not there',
        pod('').replace('namespace: default', 'namespace: nowhere'),
        [/'nowhere', and there is no such Namespace/],
      ],
      ['the same twice', `${pod('')}\n---\n${pod('')}`, [/is already in document 1/]],
      [
        'an annotation that is no text',
        pod('', ', annotations: { culvert.dev/mesh: { a: b } }'),
        [/annotations/],
      ],
      [
        'a port past the last',
        '{ apiVersion: v1, kind: Service, metadata: { name: s, namespace: default }, spec: { ports: [{ port: 70000 }] } }',
        [/port/],
      ],
      [
        'an address that is none',
        '{ apiVersion: v1, kind: Service, metadata: { name: s, namespace: default }, spec: { clusterIP: 10.97.0.300, ports: [{ port: 80 }] } }',
        [/10\.97\.0\.300/],
      ],
      ['aliases of aliases', bomb(), [/document 1/]],
      [
        'several at once',
        `${pod('').replace('name: p,', '')}\n---\nkind: X\n---\n${pod(', hostNetwork: maybe')}`,
        [/document 1.*metadata\.name/, /document 2.*'X'/, /document 3.*hostNetwork/],
      ],
    ]
    const file = join(dir, 'lab.yaml')
    const printable = (what: string, said: string, problems: readonly RegExp[]) => {
      for (const problem of problems) t.match(said, problem, what)
      t.notMatch(said.replaceAll('\n', ''), /\p{C}/u, 'nothing for the terminal to obey')
    }
    for (const [what, text, problems] of cases) {
      writeFileSync(file, text)
      printable(what, saidOf(file), problems)
    }
    // What becomes of such an error is the same for all: these show it to the end.
    for (const [what, text, problems] of cases.filter(([what]) => /^(binary|aliases|several)/.test(what))) {
      writeFileSync(file, text)
      const up = ['lab', 'up', '--detach', '--name', name, '--file', file]
      const ran = await run([process.execPath, CULVERT, ...up])
      t.equal(ran.code, 2, `${what}: ${ran.stderr.slice(0, 300)}`)
      printable(what, ran.stderr, problems)
      t.notMatch(ran.stderr, /^\s+at /m, 'no stack trace')
    }
    t.notOk(existsSync(labPaths(name).run))
    t.notOk(existsSync(`/run/netns/${netnsName(name, 'node-a')}`))
  },
)

await t.test(
  'annotations that are not understood are told where one looks, and the rest of them hold',
  async t => {
    const file = join(t.testdir({}), 'lab.yaml')
    const shipped = readFileSync(DEFAULT_LAB_FILE, 'utf8')
    writeFileSync(file, shipped)
    const lab = await labFor(t, { file })
    const server = await podNamed(lab, 'server')
    const url = `http://${server.ip}:8080/`
    const detail = async (): Promise<string> => {
      const { body } = await lab.agentAdmin(server.node, '/pods')
      const pods = JSON.parse(body) as { name: string; detail?: string }[]
      return pods.find(({ name }) => name === 'server')?.detail ?? ''
    }
    await lab.annotate('namespace/shop', { 'culvert.dev/mtls': 'Strict', 'culvert.dev/mtsl': 'strict' })
    await lab.annotate('pod/server', {
      'culvert.dev/mesh': 'yes',
      'culvert.dev/mtls-outbound': 'require',
      'culvert.dev/exclude-inbound-ports': '80,http',
      'culvert.dev/exclude-outbound-cidrs': `10.0.0.0/33${'\u001b[2J'.repeat(50)}`,
    })
    const told = await until('the problems in GET /pods', 20_000, async () => {
      const text = await detail()
      return text.includes('/33') && text.includes('Strict') ? text : undefined
    })
    for (const problem of [
      "culvert.dev/mtls: 'Strict' is not one of strict, permissive",
      'culvert.dev/mtsl: no such annotation',
      "culvert.dev/mesh: 'yes' is not one of enabled, disabled",
      "culvert.dev/exclude-inbound-ports: 'http' is not a port",
      "culvert.dev/exclude-outbound-cidrs: not a CIDR: '10.0.0.0/33",
    ])
      t.ok(told.includes(problem), problem)
    t.notMatch(told, /\p{C}/u, 'fit for a terminal')
    t.notMatch(told, /mtls-outbound/, 'what is understood is no problem')
    const { pods } = await lab.status()
    t.match(
      pods.find(({ name }) => name === 'server'),
      { mesh: 'enrolled', meshDetail: told },
    )
    const logged = readFileSync(logPath(lab.paths, 'ca-server'), 'utf8')
    t.match(logged, /"object":"Namespace shop","problems":\["culvert.dev\/mtls: 'Strict'/)
    t.match(logged, /"object":"Pod shop\/server","problems":\["culvert.dev\/mesh: 'yes'/)

    t.match(
      await httpGet(lab, 'old', url),
      { pod: 'server' },
      'what is not understood is as if not there: permissive',
    )
    const out = await lab.exec('server', [
      'curl',
      '-sS',
      '-m',
      '5',
      `http://${(await podNamed(lab, 'old')).ip}:8080/`,
    ])
    t.not(out.code, 0, 'and what is understood holds: require')

    await lab.annotate('namespace/shop', { 'culvert.dev/mtls': 'strict', 'culvert.dev/mtsl': null })
    await lab.annotate('pod/server', {
      'culvert.dev/mesh': null,
      'culvert.dev/exclude-inbound-ports': null,
      'culvert.dev/exclude-outbound-cidrs': null,
    })
    await until('no problem any more', 20_000, async () => (await detail()) === '' || undefined)
    const refused = await lab.exec('old', ['curl', '-sS', '-m', '5', url])
    t.not(refused.code, 0, 'once it is put right it holds')

    // The file is followed: one that goes bad while the lab is up changes nothing, and says so.
    writeFileSync(file, `${shipped}\n---\nkind: Pod\n`)
    const problem = await until(
      'the file’s problem in the status',
      20_000,
      async () => (await lab.status()).fileProblem,
    )
    t.match(problem, /apiVersion is required/)
    t.match(await httpGet(lab, 'client', url), { pod: 'server' })
  },
)

await t.test('garbage on every port of a lab harms nobody and is told', async t => {
  const lab = await labFor(t)
  const server = await podNamed(lab, 'server')
  const before = await processes(lab)
  const url = `http://${server.ip}:8080/`
  const garbage = {
    'random bytes': `crypto.randomBytes(100000)`,
    'an HTTP request': `Buffer.from('GET / HTTP/1.1\\r\\n\\r\\n')`,
    'half a hello': `Buffer.from('160301020001000001fc0303', 'hex')`,
    'a preface without TLS': `Buffer.from('PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n')`,
  }
  const throwAt = async (from: string, host: string, port: number, bytes: string) => {
    const script = `const crypto = require('node:crypto')
      const socket = require('node:net').connect(${port}, '${host}')
      socket.on('error', () => undefined).on('connect', () => socket.write(${bytes})).resume()
      socket.on('end', () => socket.destroy())
      setTimeout(() => socket.resetAndDestroy(), 300)`
    const argv = [process.execPath, '-e', script]
    return from === 'node-a' ? lab.execOnNode(from, argv) : lab.exec(from, argv)
  }
  const CA_SERVER = '10.99.0.2'
  await Promise.all(
    Object.values(garbage).flatMap(bytes => [
      ...[15001, 15006, 15008, 8080].flatMap(port => [
        throwAt('old', server.ip, port, bytes),
        throwAt('client', server.ip, port, bytes),
        throwAt('node-a', server.ip6, port, bytes),
      ]),
      throwAt('node-a', CA_SERVER, 15012, bytes),
    ]),
  )
  t.match(await httpGet(lab, 'client', url), { pod: 'server' })
  t.match(await httpGet(lab, 'old', url), { pod: 'server' })
  t.strictSame(await processes(lab), before, 'every process is the one it was')
  const told = accessLog(lab, server.node)
  t.ok(
    told.some(({ reason, error_code: code }) => reason === 'policy' && code === 'SELF_CALL'),
    'calls to the capture ports',
  )
  t.ok(
    told.some(
      ({ reason, error }) => reason === 'tls' && /wrong version number|http request/.test(String(error)),
    ),
    'bytes that are no TLS',
  )
  for (const node of ['node-a', 'node-b'])
    t.notMatch(readFileSync(logPath(lab.paths, `agent-${node}`), 'utf8'), /"level":"fatal"|unexpectedly/)
})

async function processes(lab: Lab): Promise<unknown> {
  const { caServer, nodes } = await lab.status()
  return [caServer, ...nodes.map(({ agent }) => [agent?.pid, agent?.restarts])]
}

/** Ten levels of ten references to the level below. */
function bomb(): string {
  const lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]']
  for (let level = 1; level < 10; level++)
    lines.push(
      `a${level}: &a${level} [${Array(10)
        .fill(`*a${level - 1}`)
        .join(', ')}]`,
    )
  return lines.join('\n')
}
