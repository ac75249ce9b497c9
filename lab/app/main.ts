/**
 * The lab's application server: what a pod with the image `culvert.dev/lab-app` runs. It knows nothing of the
 * mesh. Each port is one kind of application that a proxy may get wrong.
 *
 * | port | what it does |
 * |---|---|
 * | 8080 | HTTP: says who called and how; `GET /bytes/N` sends N bytes; a body is counted and hashed |
 * | 7000 | echo, also after the client's end (half-close) |
 * | 7001 | reads 4 KiB every 10 ms, then says how much it was |
 * | 7002 | reads everything; after the client's end answers `<bytes> <sha256>` |
 * | 7003 | echo until a line `RESET`, then resets the connection |
 *
 * Told to end, it goes at once, or serves on for `LINGER_MS`, as applications do that wait until nobody calls any more.
 */
import { writeSync } from 'node:fs'
import { flushCompileCache } from 'node:module'
import type { Server } from 'node:net'
import { httpServer } from './http.ts'
import { echoServer, resetServer, sinkServer, slowReader } from './streams.ts'

/** Descriptor that the lab hears of the start on. */
const READY_FD = 3

const ports: [number, Server][] = [
  [8080, httpServer()],
  [7000, echoServer()],
  [7001, slowReader()],
  [7002, sinkServer()],
  [7003, resetServer()],
]

await Promise.all(
  ports.map(
    ([port, server]) =>
      new Promise<void>((resolve, reject) => {
        server.once('error', reject)
        // Without a host: every address, IPv4 and IPv6.
        server.listen(port, resolve)
      }),
  ),
)
process.stdout.write(`listening on ${ports.map(([port]) => port).join(', ')}\n`)
try {
  writeSync(READY_FD, 'ready\n')
} catch {
  // Started by hand: nobody waits.
}
// The lab's other applications, and this one when it comes again, start from it.
flushCompileCache()
process.once('SIGTERM', () => setTimeout(() => process.exit(0), Number(process.env['LINGER_MS'] ?? 0)))
