import { readlinkSync } from 'node:fs'
import { Worker } from 'node:worker_threads'
import { once } from 'node:events'
import t from 'tap'
import { Epoll, EPOLLIN } from '../../../agent/sys/epoll.ts'
import { nodeLoop } from '../../../agent/sys/node-loop.ts'
import { socketPair } from '../../helpers/tcp.ts'

await t.test('Node’s loop is a descriptor that is ready when Node has something to do', async t => {
  const { fd } = nodeLoop()!
  t.match(readlinkSync(`/proc/self/fd/${fd}`), 'eventpoll')
  t.equal(nodeLoop()?.fd, fd)
  const [one, other] = await socketPair(t)
  other.on('data', () => undefined)
  await new Promise(resolve => setImmediate(() => setImmediate(resolve)))
  const epoll = new Epoll(1)
  t.teardown(() => epoll.close())
  epoll.add(fd, EPOLLIN)
  one.write('x')
  t.equal(epoll.wait(1000), 1)
  await once(other, 'data')
})

await t.test('every thread has its own', async t => {
  const source = `
    const { parentPort } = require('node:worker_threads')
    import(${JSON.stringify(new URL('../../../agent/sys/node-loop.ts', import.meta.url).href)})
      .then(({ nodeLoop }) => parentPort.postMessage(nodeLoop().fd))`
  const workers = [new Worker(source, { eval: true }), new Worker(source, { eval: true })]
  const fds = (await Promise.all(workers.map(worker => once(worker, 'message')))).map(([fd]) => fd as number)
  t.ok(fds.every(fd => Number.isInteger(fd) && fd >= 0))
  t.not(fds[0], nodeLoop()?.fd)
  t.not(fds[1], nodeLoop()?.fd)
})

await t.test('it tells when the next timer is due', async t => {
  const { msUntilTimer } = nodeLoop()!
  // The timer that finds out which it is has gone off by then.
  while (msUntilTimer() === undefined) await new Promise(resolve => setTimeout(resolve, 5))
  await new Promise(resolve => setTimeout(resolve, 5))
  const long = setTimeout(() => undefined, 5000)
  t.ok(msUntilTimer()! <= 5001)
  const first = setTimeout(() => undefined, 200)
  const ms = msUntilTimer()!
  t.ok(ms > 0 && ms <= 201, `${ms} ms`)
  clearTimeout(long)
  clearTimeout(first)
})

await t.test(
  'a timer of V8’s is not taken for it when Node’s is late and the time goes on meanwhile',
  async t => {
    // V8 may have none or one for its garbage; what waits makes one more. With one alone it can be mistaken.
    const source = `
    const { parentPort } = require('node:worker_threads')
    import(${JSON.stringify(new URL('../../../agent/sys/node-loop.ts', import.meta.url).href)}).then(({ nodeLoop }) => {
      const busy = ms => { for (const end = performance.now() + ms; performance.now() < end;); }
      const real = setTimeout
      globalThis.setTimeout = (...words) => (busy(3), real(...words))
      const look = () => {
        const late = real(() => {}, 1)
        busy(5)
        const ms = nodeLoop().msUntilTimer() ?? 'unknown'
        clearTimeout(late)
        return ms
      }
      real(() => {
        const first = look()
        Atomics.waitAsync(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 30_000)
        real(() => parentPort.postMessage([first, look()]), 20)
      }, 20)
    })`
    const worker = new Worker(source, { eval: true })
    t.teardown(() => worker.terminate())
    t.strictSame(await once(worker, 'message'), [['unknown', 'unknown']])
  },
)
