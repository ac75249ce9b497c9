/** Two ends of one loopback connection, torn down with the test. */
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Test } from 'tap'
import { TcpSocket } from '../../agent/io/tcp.ts'
import { Idle, resetOnClose } from '../../agent/proxy/app-socket.ts'
import { dupFd } from '../../agent/sys/fd.ts'

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

/** The same, one end of it a socket of the agent's own, read by nobody yet. */
export async function agentPair(t: Test): Promise<[app: Socket, agents: TcpSocket]> {
  const [near, far] = await socketPair(t)
  const fd = dupFd((far as unknown as { _handle: { fd: number } })._handle.fd)
  far.destroy() // gives its own descriptor back, and leaves the connection alone
  const agents = new TcpSocket(fd, new Idle('gone'))
  resetOnClose(agents)
  t.teardown(() => agents.destroy())
  return [near, agents]
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
