/** Two ends of one loopback connection, torn down with the test. */
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Test } from 'tap'

export async function socketPair(t: Test): Promise<[near: Socket, far: Socket]> {
  const server = createServer({ allowHalfOpen: true, noDelay: true })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const near = connect({
    port: (server.address() as AddressInfo).port,
    host: '127.0.0.1',
    allowHalfOpen: true,
    noDelay: true,
  })
  const [far] = (await once(server, 'connection')) as [Socket]
  server.close()
  t.teardown(() => {
    near.destroy()
    far.destroy()
  })
  return [near, far]
}

/** Everything until end-of-stream. Not `for await`: leaving that loop destroys the socket, both halves of it. */
export async function readAll(from: Socket): Promise<Buffer> {
  const chunks: Buffer[] = []
  from.on('data', (chunk: Buffer) => chunks.push(chunk))
  await once(from, 'end')
  return Buffer.concat(chunks)
}

/** Ends a connection with a RST, also one under TLS, which Node itself would only close. */
export function abort(socket: Duplex): void {
  const { _parent: below } = socket as { _parent?: Socket }
  ;(below ?? (socket as Socket)).resetAndDestroy()
}
