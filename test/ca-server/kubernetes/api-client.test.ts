import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import * as fc from 'fast-check'
import t, { type Test } from 'tap'
import { ApiClient, parseRetryAfter, statusError } from '../../../ca-server/kubernetes/api-client.ts'
import { readLines, type Line } from '../../../ca-server/kubernetes/lines.ts'

const LIMITS = { silenceMs: 5000, maxBytes: 10_000 }
const SIGNAL = new AbortController().signal

async function serve(t: Test, answer: RequestListener): Promise<ApiClient> {
  const server = createServer(answer)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const client = new ApiClient({
    server: new URL(`http://127.0.0.1:${port}/prefix/`),
    credentials: () => Promise.resolve({ tls: {}, headers: { authorization: 'Bearer t' } }),
  })
  t.teardown(() => {
    client.close()
    server.closeAllConnections()
    server.close()
  })
  return client
}

await t.test('a request says what it wants and who asks', async t => {
  const client = await serve(t, (request, response) => {
    let body = ''
    request.on('data', (chunk: Buffer) => (body += chunk.toString()))
    request.on('end', () => {
      const { method, url, headers } = request
      response.end(JSON.stringify({ method, url, headers, body }))
    })
  })
  t.match(await client.get('/api/v1/pods', { labelSelector: 'a=b,c' }, LIMITS, SIGNAL), {
    method: 'GET',
    url: '/prefix/api/v1/pods?labelSelector=a%3Db%2Cc',
    headers: { accept: 'application/json', authorization: 'Bearer t', 'user-agent': /^culvert-ca\/\d/ },
  })
  t.match(await client.change('PATCH', '/x', { a: null }, LIMITS, SIGNAL), {
    method: 'PATCH',
    body: '{"a":null}',
    headers: { 'content-type': 'application/merge-patch+json' },
  })
  t.match(await client.change('POST', '/x', {}, LIMITS, SIGNAL), {
    headers: { 'content-type': 'application/json' },
  })
})

await t.test('refusals, and what is no answer, are told apart', async t => {
  const client = await serve(t, (request, response) => {
    const path = new URL(request.url!, 'http://x').pathname.slice('/prefix'.length)
    if (path === '/conflict') {
      response.writeHead(409)
      response.end('{"kind":"Status","message":"changed\\u0007 meanwhile"}')
    } else if (path === '/busy') {
      response.writeHead(503, { 'retry-after': '7' })
      response.end('<html>')
    } else if (path === '/text') response.end('token-like secret text')
    else if (path === '/long') response.end('"'.padEnd(20_000, 'x'))
    else if (path === '/cut') {
      response.write('{"half":')
      setImmediate(() => response.destroy())
    } else if (path === '/half-silent') response.write('{"half":')
  })
  const get = (path: string, limits = LIMITS) => client.get(path, {}, limits, SIGNAL)
  await t.rejects(get('/conflict'), {
    name: 'ApiError',
    status: 409,
    message: 'GET /conflict was answered 409: changed? meanwhile',
  })
  await t.rejects(get('/busy'), { name: 'ApiError', status: 503, retryAfterMs: 7000 })
  await t.rejects(get('/text'), {
    code: 'KUBERNETES',
    message: '/text: the answer is not JSON',
    cause: undefined,
  })
  await t.rejects(get('/long'), { name: 'TooLongError' })
  await t.rejects(get('/cut'), { name: 'NoAnswerError', message: /cut off/ })
  const soon = { ...LIMITS, silenceMs: 50 }
  await t.rejects(get('/half-silent', soon), { name: 'NoAnswerError', code: 'TIMEOUT' })
  await t.rejects(get('/silent', soon), { name: 'NoAnswerError', cause: { code: 'TIMEOUT' } })
})

await t.test('a connection that was closed while it was idle is not the end of a request', async t => {
  let served = 0
  const client = await serve(t, (request, response) => {
    served++
    response.end('{}')
    response.on('finish', () => setImmediate(() => request.socket.resetAndDestroy()))
  })
  for (let at = 0; at < 20; at++) await client.get('/x', {}, LIMITS, SIGNAL)
  t.ok(served >= 20)
})

await t.test('lines come as they come, and a reader that stops closes the connection', async t => {
  const closed = Promise.withResolvers<void>()
  const client = await serve(t, (_, response) => {
    response.write('one\n\ntw')
    response.on('close', () => closed.resolve())
    setImmediate(() => response.write(`o\n${'x'.repeat(20_000)}\nfour\n`))
  })
  const lines: Line[] = []
  for await (const line of client.lines('/x', { watch: '1' }, LIMITS, SIGNAL))
    if (lines.push(line) === 4) break
  t.match(lines, [
    { text: 'one' },
    { text: 'two' },
    { kind: 'too-long', bytes: 20_000, head: /^x{1024}$/ },
    { text: 'four' },
  ])
  await closed.promise
})

await t.test('however a stream is cut up, its lines are the same', async t => {
  const text = fc.string({ unit: fc.constantFrom('a', 'é', '€', '😀', '\n', '\r'), maxLength: 60 })
  await fc.assert(
    fc.asyncProperty(
      text,
      fc.array(fc.integer({ min: 1, max: 7 }), { maxLength: 30 }),
      async (text, cuts) => {
        const bytes = Buffer.from(text)
        async function* chunks() {
          let from = 0
          for (const length of cuts) yield bytes.subarray(from, (from += length))
          yield bytes.subarray(from)
        }
        const lines: Line[] = []
        for await (const line of readLines(chunks(), 24)) lines.push(line)
        const expected = text.split('\n').filter(line => line !== '')
        t.strictSame(
          lines.map(line => (line.kind === 'line' ? line.text : line.bytes)),
          expected.map(line => (Buffer.byteLength(line) <= 24 ? line : Buffer.byteLength(line))),
        )
      },
    ),
  )
})

await t.test('how long to wait is a number of seconds or a date, and never for ever', t => {
  const nowMs = Date.parse('2026-01-01T00:00:00Z')
  const cases: [string | undefined, number][] = [
    [undefined, 0],
    ['0', 0],
    ['1', 1000],
    ['Thu, 01 Jan 2026 00:00:30 GMT', 30_000],
    ['Wed, 31 Dec 2025 00:00:00 GMT', 0],
    ['soon', 0],
    ['-5', 0],
    ['99999999', 300_000],
  ]
  for (const [header, waitMs] of cases) t.equal(parseRetryAfter(header, nowMs), waitMs, `${header}`)
  t.match(statusError({ kind: 'Status', code: 410, details: { retryAfterSeconds: 2 } }, 'it'), {
    status: 410,
    retryAfterMs: 2000,
    message: 'it was answered 410',
  })
  t.match(statusError(null, 'it'), { status: 0 })
  t.end()
})
