import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { connect, type AddressInfo, type Server } from 'node:net'
import t, { type Test } from 'tap'
import { BLOCK, httpServer, type Seen } from '../../../lab/app/http.ts'
import { echoServer, resetServer, sinkServer, slowReader } from '../../../lab/app/streams.ts'
import { request } from '../../../lib/plain-http.ts'

async function serve(t: Test, server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => void server.close())
  return (server.address() as AddressInfo).port
}

/** Sends, ends this half, and gives everything that came back, or the error's code. */
function exchange(port: number, ...sent: (string | Buffer)[]): Promise<string> {
  return new Promise(resolve => {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
    const chunks: Buffer[] = []
    socket.on('data', (chunk: Buffer) => void chunks.push(chunk))
    socket.once('end', () => resolve(Buffer.concat(chunks).toString()))
    socket.once('error', (err: NodeJS.ErrnoException) => resolve(err.code ?? 'error'))
    for (const part of sent) socket.write(part)
    socket.end()
  })
}

function call(
  port: number,
  method: string,
  path: string,
  body?: Buffer,
): Promise<{ status: number; body: Buffer }> {
  return new Promise((resolve, reject) => {
    const asked = request({ port, host: '127.0.0.1', method, path, agent: false }, response => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => void chunks.push(chunk))
      response.once('end', () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks) }))
    })
    asked.once('error', reject)
    asked.end(body)
  })
}

await t.test('echo answers everything after the client’s end', async t => {
  const big = 'x'.repeat(3_000_000)
  t.equal(await exchange(await serve(t, echoServer()), big, 'end'), `${big}end`)
})

await t.test('the sink says how much and what it was, after the client’s end', async t => {
  const big = Buffer.alloc(2_000_000, 'abc')
  const digest = createHash('sha256').update(big).digest('hex')
  t.equal(await exchange(await serve(t, sinkServer()), big), `${big.length} ${digest}\n`)
})

await t.test('the slow reader reads all of it, slowly', async t => {
  const startedAt = performance.now()
  t.equal(await exchange(await serve(t, slowReader()), Buffer.alloc(40_960)), '40960\n')
  t.ok(performance.now() - startedAt > 80, 'ten reads, ten milliseconds each')
})

await t.test('the reset server echoes until it is told, then resets', async t => {
  const port = await serve(t, resetServer())
  t.equal(await exchange(port, 'one\n', 'two\n'), 'one\ntwo\n')
  t.equal(await exchange(port, 'RES', 'ET\n'), 'ECONNRESET')
})

await t.test('HTTP says who called, and what the body was', async t => {
  const port = await serve(t, httpServer())
  const body = Buffer.alloc(1_000_000, 'z')
  const { status, body: answer } = await call(port, 'POST', '/hello?x=1', body)
  t.equal(status, 200)
  t.match(JSON.parse(answer.toString()) as Seen, {
    method: 'POST',
    path: '/hello?x=1',
    client: /^127\.0\.0\.1:\d+$/,
    server: `127.0.0.1:${port}`,
    bytes: body.length,
    sha256: createHash('sha256').update(body).digest('hex'),
  })
  t.equal((await call(port, 'GET', '/status/503')).status, 503)
})

await t.test('as many bytes as were asked for, always the same ones', async t => {
  const port = await serve(t, httpServer())
  const { body } = await call(port, 'GET', '/bytes/150001')
  t.equal(body.length, 150_001)
  t.ok(body.subarray(0, 65_536).equals(BLOCK))
  t.ok(body.subarray(131_072).equals(BLOCK.subarray(0, 150_001 - 131_072)))
  t.equal((await call(port, 'GET', '/bytes/0')).body.length, 0)
})
