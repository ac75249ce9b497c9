/**
 * nghttp2's own programs against ours. They cannot open tunnels: `nghttp` and `h2load` ask for what we refuse, and `nghttpd`
 * refuses what we ask for; what they do on the way (weights, padding, CONTINUATION, trailers, hundreds of streams) is theirs.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import t, { type Test } from 'tap'
import { PORT } from '../../agent/ports.ts'
import { runOk } from '../../lab/run.ts'
import { toolEnv } from '../../lib/tool-path.ts'
import { certificateFor, meshPair, type MeshPair } from '../helpers/mesh-pair.ts'
import { connectFrom, serve, type TestPod } from '../helpers/pods.ts'

const STRANGER = 'spiffe://cluster.local/ns/shop/sa/stranger'
const ECHO = 7000
const FORWARDER = 9000
/** More than a frame, and more than the window that nghttp grants. */
const BODY_BYTES = 300_000

/** The mesh, an echo in the server pod, and a member's key and certificate where these programs want them: in files. */
async function world(t: Test) {
  const mesh = await meshPair(t)
  await serve(t, mesh.server, ECHO, socket => socket.pipe(socket))
  const { key, chain } = await certificateFor(mesh.root, STRANGER)
  const dir = t.testdir({ key, chain, body: Buffer.alloc(BODY_BYTES, 'x') })
  return { ...mesh, key, chain, dir }
}

async function output(pod: TestPod, ...argv: string[]): Promise<string> {
  const { stdout, stderr } = await runOk(['ip', 'netns', 'exec', pod.netns, ...argv])
  return stdout.toString() + stderr
}

/** A connection between the two pods of the mesh goes through as ever. */
async function isServed(t: Test, { client, server }: MeshPair): Promise<void> {
  const socket = await connectFrom(t, client, server.ip, ECHO)
  socket.end('still there?')
  let text = ''
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()))
  await once(socket, 'end')
  t.equal(text, 'still there?')
}

await t.test('whatever nghttp asks for and however, it is answered 400 and the session lives', async t => {
  const mesh = await world(t)
  const { server, old, dir } = mesh
  const identity = ['--cert', join(dir, 'chain'), '--key', join(dir, 'key'), '-y', '-n', '-v']
  const body = ['-d', join(dir, 'body')]
  for (const [what, options, requests] of [
    ['one request, with weights for five streams that never are', [], 1],
    ['one without weights', ['--no-dep'], 1],
    ['fifty at once', ['-m', '50'], 50],
    ['padded', ['-b', '255', '-m', '3'], 3],
    ['with headers of several frames', ['--continuation', '-m', '3'], 3],
    ['with a body', body, 1],
    ['with a padded body and trailers', [...body, '-b', '100', '--trailer', 'x: y', '-m', '3'], 3],
    ['with small windows and no table', ['-w', '1', '-W', '1', '-c', '0', '-m', '20'], 20],
    ['with a table that shrinks and grows', ['-c', '0', '-c', '65536', '-m', '20'], 20],
    ['waiting for 100', [...body, '--expect-continue', '-t', '5'], 1],
    ['for CONNECT, with a path', ['-H', ':method: CONNECT'], 1],
  ] as [string, string[], number][]) {
    const told = await output(old, 'nghttp', ...identity, ...options, `https://${server.ip}:${PORT.hbone}/`)
    t.equal(told.match(/recv \(stream_id=\d+\) :status: 400/g)?.length, requests, what)
    t.notMatch(told, /recv GOAWAY|\[ERROR\]|error_code=(?!NO_ERROR)/, what)
  }
  await isServed(t, mesh)
})

await t.test('h2load, which has no certificate, gets nowhere and stops nobody', async t => {
  const mesh = await world(t)
  const { server, old } = mesh
  const loading = output(old, 'h2load', '-n', '300', '-c', '100', `https://${server.ip}:${PORT.hbone}/`)
  await isServed(t, mesh)
  t.match(await loading, /0 succeeded, 300 failed/)
  await isServed(t, mesh)
  t.match(await server.record(({ reason }) => reason === 'tls'), { source: { ip: old.ip } })
})

/** A port in the pod behind which every connection is a member's, to the server's tunnel port. */
async function forward(t: Test, { server, old, key, chain, root }: Awaited<ReturnType<typeof world>>) {
  const both = (socket: Socket, over: Socket): void => {
    over.on('error', () => socket.destroy())
    socket.on('close', () => over.destroy())
    over.on('close', () => socket.destroy())
    socket.pipe(over).pipe(socket)
  }
  await serve(t, old, FORWARDER, socket => {
    connectFrom(t, old, server.ip, PORT.hbone).then(
      raw => {
        const options = { key, cert: chain, ca: root.pem, ALPNProtocols: ['h2'] }
        both(socket, connectTls({ ...options, socket: raw, checkServerIdentity: () => undefined }))
      },
      () => socket.destroy(),
    )
  })
}

await t.test('twenty thousand requests of h2load, a member now, are each refused', async t => {
  const mesh = await world(t)
  await forward(t, mesh)
  const url = `http://127.0.0.1:${FORWARDER}/`
  const loading = output(mesh.old, 'h2load', '-n', '20000', '-c', '10', '-m', '100', url)
  await isServed(t, mesh)
  const told = await loading
  t.match(told, /20000 total, 20000 started, 20000 done, 0 succeeded, 20000 failed, 0 errored, 0 timeout/)
  t.match(told, /0 2xx, 0 3xx, 20000 4xx, 0 5xx/)
  await isServed(t, mesh)
})

await t.test(
  'what nghttpd answers is no tunnel: the application is reset, and its record says why',
  async t => {
    const mesh = await world(t)
    const { client, old, dir } = mesh
    client.route = ({ ip, port }) => {
      const via = { kind: 'hbone', port: PORT.hbone, identities: [STRANGER] } as const
      return { kind: 'forward', endpoints: [{ ip, port, weight: 1, peer: { workload: 'stranger' }, via }] }
    }
    for (const [at, options] of [
      [],
      ['-b', '255', '-m', '3'],
      ['-e', '-c', '0', '--encoder-header-table-size', '0'],
      ['-w', '1', '-W', '1'],
    ].entries()) {
      const stop = await nghttpd(t, old, ['-V', '--early-response', ...options, '-d', dir], dir)
      client.closed.length = 0
      const sockets = await Promise.all(
        Array.from({ length: 10 }, () => connectFrom(t, client, old.ip, 80 + at)),
      )
      const failures = sockets.map(socket => once(socket, 'error'))
      for (const socket of sockets) socket.resume().write('anyone?')
      t.match(
        await Promise.all(failures),
        Array.from({ length: 10 }, () => [{ code: 'ECONNRESET' }]),
      )
      const record = await client.record(({ error }) => /answered \d/.test(error ?? ''))
      t.match(record, { reason: 'unreachable', error: /answered 4\d\d/ }, options.join(' '))
      await stop()
    }
  },
)

/** On the tunnel port of the pod, with a certificate of the mesh. Gives what ends it. */
async function nghttpd(t: Test, pod: TestPod, options: string[], dir: string): Promise<() => Promise<void>> {
  const argv = ['netns', 'exec', pod.netns, 'nghttpd', '-v', '-a', pod.ip, ...options]
  const files = [join(dir, 'key'), join(dir, 'chain')]
  const child = spawn('ip', [...argv, String(PORT.hbone), ...files], {
    env: toolEnv(),
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const ended = once(child, 'close')
  const stop = async (): Promise<void> => {
    child.kill()
    await ended
  }
  t.teardown(stop)
  child.stderr.resume()
  let said = ''
  await new Promise<void>((resolve, reject) => {
    child.stdout.on('data', (chunk: Buffer) => {
      said += chunk.toString()
      if (said.includes('listen ')) resolve()
    })
    child.once('close', () => reject(new Error(`nghttpd ended: ${said}`)))
  })
  return stop
}
