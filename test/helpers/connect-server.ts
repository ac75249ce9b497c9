/** A real gRPC server on loopback TLS, with services given by the test. */
import { once } from 'node:events'
import { createSecureServer, type Http2SecureServer } from 'node:http2'
import type { AddressInfo, Socket } from 'node:net'
import type { ConnectRouter } from '@connectrpc/connect'
import { connectNodeAdapter } from '@connectrpc/connect-node'

export interface ConnectServer {
  readonly url: URL
  readonly port: number
  /** TCP connections that were made since the start. */
  readonly connections: number
  /** Cuts everything off and stops listening. */
  stop(): Promise<void>
}

/** Starts on a port of its own, or on `port`. */
export async function startConnectServer(
  credentials: { key: string; cert: string },
  routes: (router: ConnectRouter) => void,
  port = 0,
): Promise<ConnectServer> {
  const sockets = new Set<Socket>()
  let connections = 0
  const server: Http2SecureServer = createSecureServer(credentials, connectNodeAdapter({ routes }))
  server.on('connection', (socket: Socket) => {
    connections++
    sockets.add(socket)
    socket.on('error', () => undefined).once('close', () => sockets.delete(socket))
  })
  server.on('sessionError', () => undefined)
  server.on('tlsClientError', () => undefined)
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  const bound = (server.address() as AddressInfo).port
  return {
    url: new URL(`https://localhost:${bound}`),
    port: bound,
    get connections() {
      return connections
    },
    async stop() {
      if (!server.listening) return
      const closed = once(server, 'close')
      server.close()
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}
