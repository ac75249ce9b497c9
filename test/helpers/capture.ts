/** A stand-in for the data plane, for tests of the redirection: it says what came to which port, and where it was going. */
import { once } from 'node:events'
import { createServer, Socket } from 'node:net'
import type { Test } from 'tap'
import { formatAddress } from '../../lib/address.ts'
import { MARK, PORT } from '../../agent/ports.ts'
import { inNetns } from '../../agent/sys/netns.ts'
import { connectSocket, listenTcp } from '../../agent/sys/socket.ts'
import { originalDestination } from '../../agent/sys/sockopt.ts'
import { connectFrom, type TestPod } from './pods.ts'
import { readAll } from './tcp.ts'

/** Listens on the agent's three ports in the pod; each connection is told `outbound 10.77.0.2:8080` and ended. */
export async function standInAgent(t: Test, pod: TestPod): Promise<void> {
  for (const name of ['outbound', 'inbound', 'hbone'] as const) {
    const fd = inNetns(pod.fd, () => listenTcp({ port: PORT[name], mark: MARK }))
    const server = createServer({ allowHalfOpen: true }, socket => {
      socket.on('error', () => undefined)
      const to = originalDestination((socket as unknown as { _handle: { fd: number } })._handle.fd)
      socket.end(`${name} ${to ? formatAddress(to.ip, to.port) : 'nowhere'}`)
      socket.resume()
    })
    t.teardown(() => server.close())
    server.listen({ fd })
    await once(server, 'listening')
  }
}

/** What a connection from the pod is told, until its end. */
export async function askFrom(t: Test, pod: TestPod, host: string, port: number): Promise<string> {
  const socket = await connectFrom(t, pod, host, port)
  const text = (await readAll(socket)).toString()
  socket.destroy()
  return text
}

/** A connection as the agent makes it: marked, and from somebody's own address if one is given. */
export async function connectAsAgent(
  t: Test,
  pod: TestPod,
  to: { host: string; port: number },
  sourceIp?: string,
): Promise<Socket> {
  const family = to.host.includes(':') ? 6 : 4
  const fd = inNetns(pod.fd, () => connectSocket({ family, mark: MARK, sourceIp }))
  const socket = new Socket({ fd, allowHalfOpen: true })
  t.teardown(() => socket.destroy())
  socket.connect(to)
  await once(socket, 'connect')
  socket.on('error', () => undefined)
  return socket
}
