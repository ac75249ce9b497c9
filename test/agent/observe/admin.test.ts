import { once } from 'node:events'
import { lstatSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { request, type IncomingMessage, type RequestOptions } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fork } from 'node:child_process'
import t, { type Test } from 'tap'
import { AdminServer, type AdminHandlers, type AdminServerOptions } from '../../../agent/observe/admin.ts'
import { json, type HttpRoute } from '../../../agent/observe/http-service.ts'
import { CulvertError } from '../../../lib/errors.ts'
import { quietLog } from '../../helpers/quiet-log.ts'

/** A folder with a short name: the path of a socket may have 107 bytes. */
function folder(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'culvert-admin-'))
  t.teardown(() => rmSync(path, { recursive: true }))
  return path
}

interface Reply {
  readonly status: number | undefined
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

/** One request, on a connection of its own. */
async function ask(options: RequestOptions, body?: string): Promise<Reply> {
  const sent = request({ agent: false, ...options })
  sent.end(body)
  const [reply] = (await once(sent, 'response')) as [IncomingMessage]
  const parts: Buffer[] = []
  for await (const part of reply as AsyncIterable<Buffer>) parts.push(part)
  return { status: reply.statusCode, headers: reply.headers, body: Buffer.concat(parts).toString() }
}

function handlers(more: Partial<AdminHandlers> = {}): AdminHandlers {
  let level = 'info'
  return {
    configDump: () => ({ node: 'node-a', version: 12n }),
    connections: async () => [],
    plaintext: () => [{ pod: 'shop/a', connections: [] }],
    pods: () => [{ uid: 'u1', state: 'enrolled' }],
    certificates: () => [],
    rules: pod => `rules of ${pod}\n`,
    logLevel: () => level,
    setLogLevel: wanted => (level = wanted),
    quit: () => undefined,
    ...more,
  }
}

async function started(t: Test, more: Partial<AdminServerOptions> = {}) {
  const { log, lines } = quietLog()
  const server = new AdminServer({ handlers: handlers(), log, port: 0, ...more })
  t.teardown(() => server.close())
  await server.start()
  const get = (path: string, options: RequestOptions = {}, body?: string) =>
    ask({ host: '127.0.0.1', port: server.port!, path, ...options }, body)
  return { server, get, lines }
}

await t.test('the index lists what there is', async t => {
  const { get } = await started(t)
  const { status, body, headers } = await get('/')
  t.equal(status, 200)
  t.match(headers['content-type'], /^text\/plain/)
  for (const path of ['/config_dump', '/connections', '/pods', '/certificates', '/rules', '/debug/memory'])
    t.match(body, new RegExp(`^GET  ${path} `, 'm'))
  t.match(body, /^POST \/logging .*debug/m)
  t.match(body, /^POST \/quitquitquit /m)
})

await t.test('dumps are JSON, large numbers as text', async t => {
  const { get } = await started(t)
  t.strictSame(JSON.parse((await get('/config_dump')).body), { node: 'node-a', version: '12' })
  t.strictSame(JSON.parse((await get('/pods')).body), [{ uid: 'u1', state: 'enrolled' }])
  t.match(JSON.parse((await get('/debug/memory')).body), { rss: Number })
  t.equal((await get('/rules?pod=shop/client')).body, 'rules of shop/client\n')
})

await t.test('the log level is read and set, and only to one that exists', async t => {
  const { get } = await started(t)
  t.strictSame(JSON.parse((await get('/logging')).body), { level: 'info' })
  t.strictSame(JSON.parse((await get('/logging?level=debug', { method: 'POST' })).body), { level: 'debug' })
  const refused = await get('/logging?level=loud', { method: 'POST' })
  t.equal(refused.status, 400)
  t.match(JSON.parse(refused.body), { error: /'loud' is not a log level; they are trace, debug/ })
  t.strictSame(JSON.parse((await get('/logging')).body), { level: 'debug' })
})

await t.test('quitquitquit takes a POST, and answers before the agent goes', async t => {
  let quits = 0
  const { get } = await started(t, { handlers: handlers({ quit: () => quits++ }) })
  const refused = await get('/quitquitquit')
  t.match(refused, { status: 405, headers: { allow: 'POST' } })
  t.equal(quits, 0)
  t.equal((await get('/quitquitquit', { method: 'POST' })).status, 200)
  t.equal(quits, 1)
})

await t.test(
  "what a caller does wrong is the caller's error, what a handler does wrong is ours, both as JSON",
  async t => {
    const { get, lines } = await started(t, {
      handlers: handlers({
        rules: pod => {
          throw new CulvertError('INPUT', `there is no pod '${pod}' here`)
        },
        pods: () => {
          throw new Error('a bug')
        },
      }),
    })
    t.match(await get('/nowhere'), { status: 404, body: /nothing at \/nowhere/ })
    t.match(await get('/rules'), { status: 400, body: /name a pod/ })
    t.match(await get('/rules?pod=x'), { status: 400, body: /no pod 'x'/ })
    t.match(await get('/pods'), { status: 500, body: /a bug/ })
    t.equal(lines.filter(line => line.level === 'error').length, 1)
    t.match(await get('/pods', { method: 'DELETE' }), { status: 405 })
    const head = await get('/certificates', { method: 'HEAD' })
    t.match(head, { status: 200, body: '' })
  },
)

await t.test('a web page cannot reach it, neither by a name of its own nor by ours', async t => {
  let quits = 0
  const { get, server } = await started(t, { handlers: handlers({ quit: () => quits++ }) })
  const post = (headers: Record<string, string>) => get('/quitquitquit', { method: 'POST', headers })
  t.equal((await post({ host: 'rebound.example' })).status, 403)
  t.equal((await post({ host: `127.0.0.1:${server.port}`, origin: 'https://page.example' })).status, 403)
  t.equal((await post({ host: 'localhost.page.example' })).status, 403)
  t.equal(quits, 0)
  t.equal((await post({ host: `localhost:${server.port}` })).status, 200)
  t.equal(
    (await post({ host: `localhost:${server.port}`, origin: `http://localhost:${server.port}` })).status,
    200,
  )
})

await t.test('bodies and heads that are too long are refused, and the server goes on', async t => {
  const echo: HttpRoute = { method: 'POST', path: '/echo', handle: ({ body }) => json(body.length) }
  const { get, server } = await started(t, { routes: [echo] })
  t.equal((await get('/echo', { method: 'POST' }, 'x'.repeat(60_000))).body, '60000\n')
  t.match(await get('/echo', { method: 'POST' }, 'x'.repeat(70_000)), { status: 413 })
  const endless = request({
    agent: false,
    host: '127.0.0.1',
    port: server.port!,
    path: '/echo',
    method: 'POST',
  })
  endless.on('error', () => undefined) // the server hangs up on what it will not read
  endless.write('x'.repeat(1_000_000))
  const [refusal] = (await once(endless, 'response')) as [IncomingMessage]
  t.match(refusal, { statusCode: 413, headers: { connection: 'close' } }, 'before it has sent everything')
  endless.destroy()
  t.equal((await get('/', { headers: { long: 'x'.repeat(20_000) } })).status, 431)
  t.equal((await get('/')).status, 200)
})

await t.test('garbage on the port does no harm', async t => {
  const { get, server } = await started(t)
  for (const bytes of [
    '\u0016\u0003\u0001\u0002\u0000',
    'GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n',
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
  ]) {
    const socket = connect(server.port!, '127.0.0.1')
    socket.on('error', () => undefined).resume()
    socket.end(bytes)
    await once(socket, 'close')
  }
  t.equal((await get('/')).status, 200)
})

await t.test('a long answer is compressed for whoever asks', async t => {
  const { get } = await started(t, { handlers: handlers({ connections: () => 'x'.repeat(10_000) }) })
  const packed = await get('/connections', { headers: { 'accept-encoding': 'gzip, deflate' } })
  t.equal(packed.headers['content-encoding'], 'gzip')
  t.ok(Number(packed.headers['content-length']) < 1000)
  t.equal((await get('/connections')).headers['content-encoding'], undefined)
  const never = await get('/connections', { headers: { 'accept-encoding': 'gzip;q=0' } })
  t.equal(never.headers['content-encoding'], undefined)
})

await t.test("the Unix socket is the owner's alone, needs no Host, and is gone afterwards", async t => {
  const socketPath = join(folder(t), 'admin.sock')
  const umask = process.umask()
  const { server } = await started(t, { port: undefined, socketPath })
  t.equal(server.port, undefined)
  t.equal(lstatSync(socketPath).mode & 0o777, 0o600)
  t.equal(process.umask(), umask, 'the umask of the process is as it was')
  t.equal((await ask({ socketPath, path: '/pods', headers: { host: 'agent' } })).status, 200)
  await server.close()
  t.throws(() => lstatSync(socketPath), { code: 'ENOENT' })
})

await t.test(
  'a socket that a killed agent left is taken over; one that is served, or another file, is not',
  async t => {
    const dir = folder(t)
    const socketPath = join(dir, 'admin.sock')
    const left = fork(join(import.meta.dirname, '../../helpers/listen-and-wait.ts'), [socketPath])
    await once(left, 'message')
    const { log } = quietLog()
    const server = new AdminServer({ handlers: handlers(), log, socketPath })
    t.teardown(() => server.close())
    await t.rejects(server.start(), { code: 'CONFIG', message: /another process serves/ })
    left.kill('SIGKILL')
    await once(left, 'exit')
    t.ok(lstatSync(socketPath).isSocket(), 'it was left behind')
    await server.start()
    t.equal((await ask({ socketPath, path: '/pods' })).status, 200)

    const file = join(dir, 'file')
    writeFileSync(file, '')
    mkdirSync(join(dir, 'folder'))
    for (const path of [file, join(dir, 'folder')]) {
      const other = new AdminServer({ handlers: handlers(), log, socketPath: path })
      await t.rejects(other.start(), { code: 'CONFIG', message: /is not a socket/ })
    }
  },
)

await t.test('a socket path that the kernel cannot take is named', async t => {
  const socketPath = `/tmp/${'x'.repeat(110)}`
  const server = new AdminServer({ handlers: handlers(), log: quietLog().log, socketPath })
  await t.rejects(server.start(), { code: 'CONFIG', message: /115 bytes; the kernel takes 107/ })
})

await t.test('two agents share the port', async t => {
  const first = await started(t)
  const second = await started(t, { port: first.server.port! })
  await first.server.close()
  t.equal((await second.get('/')).status, 200)
})

await t.test('closing does not wait for idle connections', async t => {
  const { server } = await started(t)
  const socket = connect(server.port!, '127.0.0.1')
  await once(socket, 'connect')
  socket.on('error', () => undefined).resume()
  const closed = once(socket, 'close')
  await server.close()
  await closed
})
