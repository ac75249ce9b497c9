/**
 * A mix of applications that runs in a pod: each kind of connection over and over, every byte accounted for. Ends at
 * SIGTERM, once what is open has ended, with one line of JSON.
 *
 * usage: node traffic.ts SEED PAUSES HOST [VIP]
 *
 * Pauses between connections are so many times as long as below.
 *
 * | kind | what must be |
 * |---|---|
 * | upload | what was sent has the hash that the far end says |
 * | echo | what comes back has the hash of what was sent, though it comes while more is sent |
 * | chat | each of many small messages comes back before the next is sent |
 * | short | a request on a connection of its own is answered |
 * | download | a slow reader gets every byte of what was announced |
 * | slow | a far end that reads slowly gets every byte |
 * | half | the end of one direction leaves the other open |
 * | abort | the connection can be reset at any time |
 * | reset | the far end's reset arrives as a reset and nothing else |
 */
import { createHash, randomBytes, type Hash } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { BLOCK } from '../../lab/app/http.ts'
import { errorCode, errorText } from '../../lib/errors.ts'
import { Random } from '../fuzz/random.ts'

export type TrafficKind =
  'upload' | 'echo' | 'chat' | 'short' | 'download' | 'slow' | 'half' | 'abort' | 'reset'

export interface TrafficFailure {
  readonly kind: TrafficKind
  readonly startedAtMs: number
  readonly failedAtMs: number
  readonly error: string
}

export interface TrafficResult {
  /** Connections of each kind that ended as they should. */
  readonly done: Readonly<Record<TrafficKind, number>>
  /** Application bytes of those, both ways. */
  readonly bytes: number
  /** The first of them; `failed` is how many there were. */
  readonly failures: readonly TrafficFailure[]
  readonly failed: number
}

/** Longer than any disturbance holds a connection up. */
const LIMIT_MS = 30_000
const MOST_FAILURES = 20_000
const CHUNK_BYTES = 65_536

const [seed = '1', pauses = '1', host = '', vip] = process.argv.slice(2)
const random = new Random('traffic', seed)
const done: Record<TrafficKind, number> = {
  upload: 0,
  echo: 0,
  chat: 0,
  short: 0,
  download: 0,
  slow: 0,
  half: 0,
  abort: 0,
  reset: 0,
}
const failures: TrafficFailure[] = []
let failed = 0
let bytes = 0
const stopping = new AbortController()

/** One connection, and its promises: all of them reject when it fails. */
class Call {
  readonly socket: Socket
  readonly #failed = Promise.withResolvers<never>()
  readonly ended: Promise<void>
  received = 0
  readonly hash: Hash = createHash('sha256')
  #tail = Buffer.alloc(0)
  #onData: () => void = () => undefined

  constructor(port: number, to = host) {
    this.socket = connect({ host: to, port, allowHalfOpen: true, noDelay: true })
    this.#failed.promise.catch(() => undefined) // whoever waits hears of it
    this.socket.on('error', err => this.#failed.reject(err))
    this.socket.on('close', () => this.#failed.reject(new Error('closed')))
    this.socket.setTimeout(LIMIT_MS, () => this.#failed.reject(new Error(`silent for ${LIMIT_MS} ms`)))
    this.ended = this.orFail(new Promise(resolve => this.socket.once('end', resolve)))
    this.ended.catch(() => undefined)
    this.socket.on('data', (chunk: Buffer) => {
      this.received += chunk.length
      this.hash.update(chunk)
      this.#tail = Buffer.concat([this.#tail, chunk]).subarray(-256)
      this.#onData()
    })
  }

  /** The last 256 bytes at most. */
  get text(): string {
    return this.#tail.toString('latin1')
  }

  async got(bytes: number): Promise<void> {
    if (this.received >= bytes) return
    await this.orFail(
      new Promise<void>(resolve => (this.#onData = () => this.received >= bytes && resolve())),
    )
  }

  /** Sends random bytes and gives their hash. */
  async send(count: number): Promise<string> {
    const hash = createHash('sha256')
    for (let left = count; left > 0;) {
      const chunk = randomBytes(Math.min(left, CHUNK_BYTES))
      left -= chunk.length
      hash.update(chunk)
      if (!this.socket.write(chunk))
        await this.orFail(new Promise(resolve => this.socket.once('drain', resolve)))
    }
    return hash.digest('hex')
  }

  orFail<T>(what: Promise<T>): Promise<T> {
    return Promise.race([what, this.#failed.promise])
  }

  /** How it failed, which it must. */
  async failure(): Promise<string> {
    try {
      await this.ended
      return 'end'
    } catch (err) {
      return errorCode(err) ?? errorText(err)
    }
  }
}

function same<T extends string | number | undefined>(what: string, is: T, should: T): void {
  if (is !== should) throw new Error(`${what}: ${is ?? 'nothing'} and not ${should ?? 'nothing'}`)
}

const KINDS: Readonly<Record<TrafficKind, (use: (call: Call) => Call) => Promise<number>>> = {
  upload: async use => {
    const call = use(new Call(7002))
    const count = random.between(1, 4_000_000)
    const digest = await call.send(count)
    call.socket.end()
    await call.ended
    same('the far end has received', call.text, `${count} ${digest}\n`)
    return count
  },
  echo: async use => {
    const call = use(new Call(7000))
    const count = random.between(1, 2_000_000)
    const digest = await call.send(count)
    call.socket.end()
    await call.ended
    same('bytes that came back', call.received, count)
    same('hash of what came back', call.hash.digest('hex'), digest)
    return 2 * count
  },
  chat: async use => {
    const call = use(new Call(7000))
    const rounds = random.between(10, 150)
    let count = 0
    for (let round = 0; round < rounds; round++) {
      const message = randomBytes(random.between(1, 2000))
      count += message.length
      call.socket.write(message)
      await call.got(count)
      await sleep(random.int(20))
    }
    call.socket.end()
    await call.ended
    same('bytes that came back', call.received, count)
    return 2 * count
  },
  short: async use => {
    const call = use(vip === undefined || random.once(2) ? new Call(8080) : new Call(80, vip))
    call.socket.write('GET / HTTP/1.0\r\n\r\n')
    await call.ended
    if (!call.text.endsWith('}\n'))
      throw new Error(`an answer that ends with ${JSON.stringify(call.text.slice(-20))}`)
    call.socket.end()
    return call.received
  },
  download: async use => {
    const call = use(new Call(8080))
    const count = random.between(100_000, 3_000_000)
    call.socket.write(`GET /bytes/${count} HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n`)
    const read = setInterval(() => {
      call.socket.pause()
      setTimeout(() => call.socket.resume(), 15)
    }, 30)
    try {
      await call.ended
    } finally {
      clearInterval(read)
    }
    const last = (count - 1) % BLOCK.length
    same('the last byte', call.text.charCodeAt(call.text.length - 1), BLOCK[last])
    if (call.received < count) throw new Error(`${call.received} bytes of ${count} and their header`)
    call.socket.end()
    return count
  },
  slow: async use => {
    const call = use(new Call(7001))
    const count = random.between(1, 500_000)
    await call.send(count)
    call.socket.end()
    await call.ended
    same('the far end has received', call.text, `${count}\n`)
    return count
  },
  half: async use => {
    const call = use(new Call(7000))
    call.socket.end('the one direction')
    await call.ended
    same('what came after our end', call.text, 'the one direction')
    return 34
  },
  abort: async use => {
    const call = use(new Call(random.pick([7000, 7001, 7002, 8080])))
    call.socket.write(randomBytes(random.between(1, 200_000)))
    await call.orFail(new Promise(resolve => call.socket.once('connect', resolve)))
    await sleep(random.int(60))
    call.socket.resetAndDestroy()
    return 0
  },
  reset: async use => {
    const call = use(new Call(7003))
    call.socket.write('so far so good\n')
    await call.got(15)
    call.socket.write('RESET\n')
    same('the far end resets', await call.failure(), 'ECONNRESET')
    return 15
  },
}

/** Pause between two of a kind, ms: the mix is even in time, and the machine is not only ours. */
const PAUSE_MS: Readonly<Record<TrafficKind, number>> = {
  upload: 150,
  echo: 150,
  chat: 20,
  short: 25,
  download: 200,
  slow: 300,
  half: 60,
  abort: 60,
  reset: 60,
}

async function carryOn(kind: TrafficKind): Promise<void> {
  const pause = () =>
    sleep(random.int(2 * PAUSE_MS[kind]) * Number(pauses), undefined, { signal: stopping.signal }).catch(
      () => undefined,
    )
  for (await pause(); !stopping.signal.aborted; await pause()) {
    const startedAtMs = Date.now()
    let call: Call | undefined
    try {
      const carried = await KINDS[kind](made => (call = made))
      bytes += carried
      done[kind]++
    } catch (err) {
      failed++
      const error = errorCode(err) ?? errorText(err)
      if (failures.length < MOST_FAILURES) failures.push({ kind, startedAtMs, failedAtMs: Date.now(), error })
    } finally {
      call?.socket.destroy()
    }
  }
}

process.once('SIGTERM', () => stopping.abort())
process.stdout.write('started\n')
await Promise.all((Object.keys(KINDS) as TrafficKind[]).flatMap(kind => [carryOn(kind), carryOn(kind)]))
const result: TrafficResult = { done, bytes, failures, failed }
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0))
