/** A thread or process with a loop of its own: echoes one connection, or has something thrown into it. */
import { isMainThread, parentPort } from 'node:worker_threads'
import { Listener } from '../../agent/io/listener.ts'
import { loop } from '../../agent/io/loop.ts'
import { NOTHING, TcpSocket } from '../../agent/io/tcp.ts'
import { listenTcp } from '../../agent/sys/socket.ts'
import { localAddress } from '../../agent/sys/sockopt.ts'
import { BareEnd, fdPair, Hearer } from './io.ts'
import { becomes } from './becomes.ts'

/** Serves one connection until its end, tells the port, and leaves nothing behind. */
function echoOnce(tell: (port: number) => void): void {
  const fd = listenTcp({ port: 0, ipv6: false })
  const bytes = Buffer.alloc(65_536)
  const listener = new Listener(
    fd,
    accepted => {
      listener.close()
      const socket = new TcpSocket(accepted, {
        readable: () => {
          const count = socket.read(bytes, bytes.length)
          if (count > 0) socket.write(bytes.subarray(0, count))
          else if (count !== NOTHING) socket.end(() => socket.destroy())
        },
        drained: () => undefined,
        failed: () => undefined,
      })
      socket.resume()
    },
    err => {
      throw err
    },
  )
  tell(localAddress(fd)!.port)
}

/** Two sockets in one batch of events, the first of which throws; then callbacks that do. */
async function throwing(): Promise<void> {
  const thrown: string[] = []
  process.on('uncaughtException', err => thrown.push(err.message))
  const teardowns: (() => void)[] = []
  const t = { teardown: (callback: () => void) => teardowns.push(callback) }
  const [[near1, far1], [near2, far2]] = [await fdPair(), await fdPair()]
  const [bad, good] = [new Hearer(), new Hearer()]
  bad.onReadable = () => {
    bad.take()
    throw new Error('watcher')
  }
  bad.socket = new TcpSocket(near1, bad)
  good.socket = new TcpSocket(near2, good)
  for (const { socket } of [bad, good]) socket!.resume()
  const ends = [new BareEnd(t as never, far1), new BareEnd(t as never, far2)]
  for (const end of ends) end.send('x')
  await good.until(() => good.text === 'x')
  const served: string[] = []
  for (const ask of ['afterTurn', 'nextTurn'] as const) {
    loop[ask](() => {
      throw new Error(ask)
    })
    await new Promise<void>(resolve =>
      loop[ask](() => {
        served.push(ask)
        resolve()
      }),
    )
  }
  ends[1]!.send('y')
  await good.until(() => good.text === 'xy')
  await becomes(() => thrown.length >= 3)
  bad.socket.destroy()
  good.socket.destroy()
  for (const teardown of teardowns) teardown()
  process.stdout.write(`${JSON.stringify({ thrown, served })}\n`)
}

if (!isMainThread) echoOnce(port => parentPort!.postMessage(port))
else if (process.argv[2] === 'throwing') await throwing()
else if (process.argv[2] === 'echo') echoOnce(port => process.stdout.write(`${port}\n`))
