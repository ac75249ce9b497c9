import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import t, { type Test } from 'tap'
import { loop } from '../../../agent/io/loop.ts'
import { TcpSocket } from '../../../agent/io/tcp.ts'
import { EPOLLIN } from '../../../agent/sys/epoll.ts'
import { closeFd } from '../../../agent/sys/fd.ts'
import { fastestMs } from '../../helpers/fastest.ts'
import { BareEnd, fdPair, Hearer, settled } from '../../helpers/io.ts'
import { readAll, socketPair } from '../../helpers/tcp.ts'

const THREAD = new URL('../../helpers/io-thread.ts', import.meta.url)

/** A socket that keeps the loop at it. */
async function quietSocket(t: Test): Promise<{ far: BareEnd; hearer: Hearer }> {
  const [near, far] = await fdPair()
  const hearer = new Hearer()
  hearer.socket = new TcpSocket(near, hearer)
  hearer.socket.resume()
  t.teardown(() => hearer.socket!.destroy())
  return { far: new BareEnd(t, far), hearer }
}

await t.test('promises and ticks are served after each batch, before the next', async t => {
  const { far, hearer } = await quietSocket(t)
  const order: string[] = []
  const served = Promise.withResolvers<void>()
  hearer.onReadable = () => {
    hearer.take()
    order.push('event')
    process.nextTick(() => order.push('tick'))
    void Promise.resolve().then(() => {
      order.push('promise')
      far.send('again')
      if (order.length > 8) served.resolve()
    })
    loop.afterTurn(() => {
      order.push('after')
      loop.afterTurn(() => order.push('after that'))
    })
  }
  far.send('now')
  await served.promise
  const round = ['event', 'after', 'after that', 'tick', 'promise']
  t.strictSame(order.slice(0, 10), [...round, ...round])
})

await t.test('what a promise asks to be done after the turn is done in the same', async t => {
  const { far, hearer } = await quietSocket(t)
  const order: string[] = []
  const served = Promise.withResolvers<void>()
  hearer.onReadable = () => {
    hearer.take()
    void Promise.resolve().then(() => loop.afterTurn(() => order.push('after')))
    loop.nextTurn(() => {
      order.push('next')
      served.resolve()
    })
  }
  far.send('now')
  await served.promise
  t.strictSame(order, ['after', 'next'])
})

await t.test('callbacks are served without a socket, and hold nobody up', async t => {
  const tookMs = await fastestMs(5, async () => {
    for (let times = 0; times < 20; times++) {
      await new Promise<void>(resolve => loop.afterTurn(resolve))
      await new Promise<void>(resolve => loop.nextTurn(resolve))
    }
  })
  t.ok(tookMs < 200, `${Math.round(tookMs)} ms for 40`)
})

await t.test('work without end leaves their turns to sockets, to timers and to Node', async t => {
  const { far, hearer } = await quietSocket(t)
  const [one, other] = await socketPair(t)
  let isOver = false
  const again = () => {
    if (!isOver) loop.nextTurn(again)
  }
  again()
  far.send('x')
  await hearer.until(() => hearer.text === 'x')
  await new Promise(resolve => setTimeout(resolve, 1))
  other.write('y')
  t.equal(String((await once(one, 'data'))[0]), 'y')
  isOver = true
})

await t.test('timers are late by 20 ms at most, with sockets that are silent', async t => {
  await quietSocket(t)
  await settled()
  const late: number[] = []
  for (let times = 0; times < 12; times++) {
    const due = performance.now() + 3
    await new Promise(resolve => setTimeout(resolve, 3))
    late.push(performance.now() - due)
  }
  late.sort((a, b) => a - b)
  t.ok(late[3]! < 24, `a quarter within ${late[3]!.toFixed(1)} ms, whatever else the machine does`)
})

await t.test('silent sockets wake nobody up', async t => {
  await quietSocket(t)
  await new Promise(resolve => setTimeout(resolve, 300)) // until it has become quiet
  const wakeUps = () =>
    Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(readFileSync('/proc/thread-self/status', 'utf8'))![1])
  const before = wakeUps()
  const startMs = performance.now()
  await new Promise(resolve => setTimeout(resolve, 2000))
  t.ok(performance.now() - startMs >= 1999)
  const count = wakeUps() - before
  t.ok(count < 50, `${count} in two seconds`) // a hundred if it looked every 20 ms
})

await t.test('what a timer puts off from turn to turn does not wait for the next timer', async t => {
  await quietSocket(t)
  let slowestMs = 0
  for (let times = 0; times < 16; times++) {
    // At other moments of the loop's quiet waits each time, and with nothing else that is due soon.
    await new Promise(resolve => setTimeout(resolve, 60 + 4 * times))
    const startMs = performance.now()
    for (let turns = 0; turns < 8; turns++) await new Promise(setImmediate)
    slowestMs = Math.max(slowestMs, performance.now() - startMs)
  }
  t.ok(slowestMs < 600, `${Math.round(slowestMs)} ms for eight turns`)
})

await t.test('timers come under load, too', async t => {
  const { far, hearer } = await quietSocket(t)
  hearer.onReadable = () => {
    hearer.take()
    far.send('again')
  }
  far.send('and')
  const tookMs = await fastestMs(3, async () => {
    for (let times = 0; times < 10; times++) await new Promise(resolve => setTimeout(resolve, 1))
  })
  t.ok(tookMs < 1000, `${Math.round(tookMs)} ms for ten`)
})

await t.test('Node’s own sockets are served at once, whatever this loop waits for', async t => {
  await quietSocket(t)
  const [one, other] = await socketPair(t)
  other.on('data', (chunk: Buffer) => other.write(chunk))
  await settled()
  const trips: number[] = []
  for (let times = 0; times < 50; times++) {
    const start = performance.now()
    one.write('there and back')
    await once(one, 'data')
    trips.push(performance.now() - start)
  }
  trips.sort((a, b) => a - b)
  t.ok(trips[25]! < 8, `half of the round trips within ${trips[25]!.toFixed(2)} ms`)
})

await t.test('a descriptor that is no longer watched is told nothing', async t => {
  const [near, far] = await fdPair()
  const end = new BareEnd(t, far)
  let told = 0
  const watcher = { ready: () => void told++ }
  loop.add(near, EPOLLIN, watcher)
  t.throws(() => loop.add(near, EPOLLIN, watcher), { code: 'SYSCALL' })
  end.send('x')
  await settled()
  t.ok(told > 0, 'told as long as it is so')
  loop.change(near, 0)
  const before = told
  await settled()
  t.equal(told, before)
  loop.change(near, EPOLLIN)
  loop.remove(near)
  loop.remove(near)
  t.notOk(loop.forget(near))
  await settled()
  t.equal(told, before)
  closeFd(near)
})

await t.test('what a watcher throws reaches the process, and stops nobody', async t => {
  const child = spawn(process.execPath, [fileURLToPath(THREAD), 'throwing'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => child.kill())
  const text = await readAll(child.stdout as never)
  const { thrown, served } = JSON.parse(String(text)) as { thrown: string[]; served: string[] }
  t.strictSame(thrown.toSorted(), ['afterTurn', 'nextTurn', 'watcher'])
  t.strictSame(served, ['afterTurn', 'nextTurn'])
})

/** Has bytes echoed and ends the connection. */
async function useEcho(t: Test, port: number): Promise<void> {
  const socket = connect({ port, host: '127.0.0.1' })
  t.teardown(() => socket.destroy())
  socket.write('there and back')
  t.equal(String((await once(socket, 'data'))[0]), 'there and back')
  socket.end()
  await once(socket.resume(), 'end')
}

await t.test('a process ends by itself when its last socket is closed', async t => {
  const child = spawn(process.execPath, [fileURLToPath(THREAD), 'echo'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => child.kill())
  const ended = once(child, 'exit')
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  await useEcho(t, Number(line))
  t.strictSame(await ended, [0, null])
})

await t.test(
  'two threads have a loop each, beside that of the main thread, and end by themselves',
  async t => {
    await quietSocket(t)
    const workers = [new Worker(THREAD), new Worker(THREAD)]
    const exits = workers.map(worker => once(worker, 'exit'))
    const ports = await Promise.all(workers.map(worker => once(worker, 'message')))
    await Promise.all(ports.map(([port]) => useEcho(t, port as number)))
    t.strictSame(await Promise.all(exits), [[0], [0]])
  },
)
