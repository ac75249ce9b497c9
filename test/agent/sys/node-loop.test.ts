import { readlinkSync } from 'node:fs'
import { Worker } from 'node:worker_threads'
import { once } from 'node:events'
import t from 'tap'
import { Epoll, EPOLLIN } from '../../../agent/sys/epoll.ts'
import { nodeBackendFd } from '../../../agent/sys/node-loop.ts'
import { socketPair } from '../../helpers/tcp.ts'

await t.test('Node’s loop is a descriptor that is ready when Node has something to do', async t => {
  const fd = nodeBackendFd()!
  t.match(readlinkSync(`/proc/self/fd/${fd}`), 'eventpoll')
  t.equal(nodeBackendFd(), fd)
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
      .then(({ nodeBackendFd }) => parentPort.postMessage(nodeBackendFd()))`
  const workers = [new Worker(source, { eval: true }), new Worker(source, { eval: true })]
  const fds = (await Promise.all(workers.map(worker => once(worker, 'message')))).map(([fd]) => fd as number)
  t.ok(fds.every(fd => Number.isInteger(fd) && fd >= 0))
  t.not(fds[0], nodeBackendFd())
  t.not(fds[1], nodeBackendFd())
})
