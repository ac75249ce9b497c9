/** HTTP requests to a port on a pod's loopback, as `kubectl port-forward` reaches it: through API server and kubelet. */
import { Duplex, PassThrough } from 'node:stream'
import { PortForward } from '@kubernetes/client-node'
import { CulvertError, errorText } from '../../lib/errors.ts'
import { request } from '../../lib/plain-http.ts'
import type { Connection } from './connection.ts'

export interface ForwardTarget {
  readonly namespace: string
  readonly pod: string
  readonly port: number
}

const TIMEOUT_MS = 20_000
const MOST_BYTES = 256 * 1024 * 1024

/** The JSON that a GET of the path is answered with. Throws `UNREACHABLE`, or `KUBERNETES` for an answer that is none. */
export async function getForwarded(
  connection: Connection,
  target: ForwardTarget,
  path: string,
): Promise<unknown> {
  const name = `${target.namespace}/${target.pod}`
  const toPod = new PassThrough()
  const fromPod = new PassThrough()
  const complaints = new PassThrough()
  let complaint = ''
  complaints.on('data', (bytes: Buffer) => (complaint += bytes.toString()))
  let socket: { close(): void } | undefined
  try {
    const opened = await new PortForward(connection.config).portForward(
      target.namespace,
      target.pod,
      [target.port],
      fromPod,
      complaints,
      toPod,
    )
    socket = typeof opened === 'function' ? (opened() ?? undefined) : opened
    const stream = Duplex.from({ readable: fromPod, writable: toPod } as never) // as documented; the types lack it
    stream.on('error', () => undefined) // the request is told
    const { status, text } = await get(stream, target.port, path)
    if (status !== 200) throw new CulvertError('KUBERNETES', `${name}: ${path} was answered ${status}`)
    return JSON.parse(text) as unknown
  } catch (err) {
    if (err instanceof CulvertError && err.code === 'KUBERNETES') throw err
    throw new CulvertError('UNREACHABLE', `port ${target.port} of ${name} cannot be reached`, {
      cause: new Error(complaint.trim() || errorText(err) || 'the connection was closed'),
    })
  } finally {
    socket?.close()
    toPod.destroy()
    fromPod.destroy()
  }
}

function get(stream: Duplex, port: number, path: string): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const asked = request({
      path,
      host: '127.0.0.1',
      port,
      headers: { host: `127.0.0.1:${port}`, connection: 'close' },
      createConnection: () => stream,
    })
    // The stream is no socket, and has no time limits of its own.
    const timer = setTimeout(
      () => asked.destroy(new CulvertError('TIMEOUT', `no answer in ${TIMEOUT_MS / 1000} s`)),
      TIMEOUT_MS,
    )
    asked.on('close', () => clearTimeout(timer))
    asked.on('error', reject)
    asked.on('response', response => {
      const chunks: Buffer[] = []
      let bytes = 0
      response.on('data', (chunk: Buffer) => {
        chunks.push(chunk)
        if ((bytes += chunk.length) > MOST_BYTES) response.destroy(new Error('the answer is too long'))
      })
      response.on('error', reject)
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString() }),
      )
    })
    asked.end()
  })
}
