import { networkInterfaces } from 'node:os'
import { Worker } from 'node:worker_threads'
import { once } from 'node:events'
import t from 'tap'
import { inNetns, netnsInode, openNetns } from '../../agent/sys/netns.ts'
import { closeFd, listenTcp } from '../../agent/sys/socket.ts'
import { socketNetns } from '../../agent/sys/sockopt.ts'
import { makePods } from '../helpers/pods.ts'

const own = () => netnsInode('/proc/thread-self/ns/net')

await t.test('work runs inside, also nested, and the thread comes back', async t => {
  const [a, b] = makePods(t, ['a', 'b'])
  const home = own()
  const seen = inNetns(a!.fd, () => [own(), inNetns(b!.fd, own), own()])
  t.strictSame(seen, [netnsInode(a!.fd), netnsInode(b!.fd), netnsInode(a!.fd)])
  t.equal(own(), home)
  t.ok(inNetns(a!.fd, () => networkInterfaces())['eth0'])
})

await t.test(
  'the thread comes back from work that throws, and from work that is not synchronous',
  async t => {
    const [pod] = makePods(t, ['a'])
    const home = own()
    t.throws(
      () =>
        inNetns(pod!.fd, () => {
          throw new Error('as asked')
        }),
      { message: 'as asked' },
    )
    t.equal(own(), home)
    t.throws(() => inNetns(pod!.fd, () => Promise.resolve()), {
      code: 'NETNS',
      message: /must be synchronous/,
    })
    t.equal(own(), home)
  },
)

await t.test('a socket stays where it was made', async t => {
  const [pod] = makePods(t, ['a'])
  const fd = inNetns(pod!.fd, () => listenTcp({ port: 8080 }))
  t.teardown(() => closeFd(fd))
  t.equal(socketNetns(fd), netnsInode(pod!.fd))
})

await t.test('worker threads go in and out on their own', async t => {
  const [pod] = makePods(t, ['a'])
  const code = `
    const { inNetns, netnsInode } = await import(process.env.NETNS_MODULE)
    const { parentPort, workerData } = await import('node:worker_threads')
    const own = () => netnsInode('/proc/thread-self/ns/net')
    parentPort.postMessage([own(), inNetns(workerData, own), own()])`
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`), {
    workerData: pod!.fd,
    env: { ...process.env, NETNS_MODULE: new URL('../../agent/sys/netns.ts', import.meta.url).href },
  })
  const [seen] = (await once(worker, 'message')) as [bigint[]]
  t.strictSame(seen, [own(), netnsInode(pod!.fd), own()])
  await worker.terminate()
})

await t.test('what is not a network namespace is refused by name', async t => {
  t.throws(() => openNetns('/etc/hostname'), {
    code: 'NETNS',
    message: '/etc/hostname is not a network namespace',
  })
  t.throws(() => openNetns('/proc/self/ns/mnt'), { code: 'NETNS', message: /is not a network namespace/ })
  t.throws(() => openNetns('/run/netns/none-of-this-name'), { code: 'NETNS', message: /cannot open/ })
})
