/**
 * The applications of the server's pod, in one process, the same for every arm: echo, one that says whom it sees, and
 * a small HTTP server. Says `ready` once all of them listen.
 *
 * usage: node server.ts ECHO-PORT WHO-PORT HTTP-PORT
 */
import { createServer as createHttpServer } from 'node:http'
import { createServer, type Server, type Socket } from 'node:net'

/** 10,000 connections may come at once. */
const BACKLOG = 4096

const BODY = 'hello from the server of the bench\n'

function tcp(serve: (socket: Socket) => void): Server {
  return createServer({ noDelay: true }, socket => {
    socket.on('error', () => undefined) // the client's right
    serve(socket)
  })
}

const echo = tcp(socket => {
  socket.on('data', chunk => {
    if (socket.write(chunk)) return
    socket.pause()
    socket.once('drain', () => socket.resume())
  })
})
const who = tcp(socket => socket.end(`${socket.remoteAddress} ${socket.remotePort}\n`))
const http = createHttpServer((request, response) => {
  request.resume()
  response.writeHead(200, { 'content-type': 'text/plain', 'content-length': BODY.length })
  response.end(BODY)
})
http.keepAliveTimeout = 0

const ports = process.argv.slice(2).map(Number)
await Promise.all(
  [echo, who, http].map(
    (server, at) =>
      new Promise<void>((resolve, reject) => {
        server.once('error', reject)
        server.listen({ port: ports[at], host: '0.0.0.0', backlog: BACKLOG }, resolve)
      }),
  ),
)
process.stdout.write('ready\n')
