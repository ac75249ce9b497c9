/**
 * Applications of plain TCP. Every socket is half-open capable and has its error listener at once: a reset by
 * the client is its right and ends only that connection.
 */
import { createHash } from 'node:crypto'
import { createServer, type Server, type Socket } from 'node:net'

const SLOW_READ_BYTES = 4096
const SLOW_READ_MS = 10
/** A line longer than this is no `RESET`. */
const MAX_LINE_BYTES = 1024

/** Sends back whatever comes, and ends when the client does. */
export function echoServer(): Server {
  return streamServer(socket => socket.pipe(socket))
}

/** Takes 4 KiB every 10 ms, however fast it comes, and at the end says how many bytes it was. */
export function slowReader(): Server {
  return streamServer(socket => {
    let bytes = 0
    const timer = setInterval(() => {
      const chunk = socket.read(Math.min(SLOW_READ_BYTES, socket.readableLength)) as Buffer | null
      bytes += chunk?.length ?? 0
      // Reading nothing is what tells the stream to fetch more, or that it has ended.
      if (chunk === null) socket.read(0)
    }, SLOW_READ_MS)
    socket.once('end', () => socket.end(`${bytes}\n`))
    socket.once('close', () => clearInterval(timer))
  })
}

/** Takes everything; once the client has ended, answers `<bytes> <sha256 in hex>`. */
export function sinkServer(): Server {
  return streamServer(socket => {
    const hash = createHash('sha256')
    let bytes = 0
    socket.on('data', chunk => {
      hash.update(chunk)
      bytes += chunk.length
    })
    socket.once('end', () => socket.end(`${bytes} ${hash.digest('hex')}\n`))
  })
}

/** Sends back whatever comes until a line says `RESET`; then the client gets a RST, not an end. */
export function resetServer(): Server {
  return streamServer(socket => {
    let line = ''
    socket.on('data', chunk => {
      const lines = (line + chunk.toString('latin1')).split('\n')
      line = (lines.pop() ?? '').slice(-MAX_LINE_BYTES)
      if (lines.some(text => text.trim() === 'RESET')) socket.resetAndDestroy()
      else if (!socket.write(chunk)) {
        socket.pause()
        socket.once('drain', () => socket.resume())
      }
    })
    socket.once('end', () => socket.end())
  })
}

function streamServer(serve: (socket: Socket) => void): Server {
  return createServer({ allowHalfOpen: true, noDelay: true }, socket => {
    socket.on('error', () => undefined)
    serve(socket)
  })
}
