/** The demo's clients, started inside pods and asked for their results. */
import type { ChildProcess, SpawnOptions } from 'node:child_process'
import { createInterface } from 'node:readline'
import { CulvertError } from '../../lib/errors.ts'
import type { Lab } from '../lab.ts'
import { programArgv } from '../supervisor/context.ts'
import type { HoldResult } from './hold.ts'
import type { LoadResult } from './load.ts'

/** A client under way: `stop()` ends it and gives what it saw. */
export interface Client<R> {
  /** What it saw, once it has ended, by itself or told to. */
  readonly result: Promise<R>
  stop(): Promise<R>
}

/** New connections to `url` from a pod, `rate` a second. */
export async function startLoad(
  lab: Lab,
  pod: string,
  url: string,
  rate: number,
  seconds: number,
): Promise<Client<LoadResult>> {
  const args = [url, String(rate), String(seconds)]
  return clientOf(await lab.spawn(pod, [...programArgv('lab/demo/load.ts'), ...args], PIPED))
}

/** One connection from a pod, kept busy. Resolves once it stands. */
export async function holdConnection(
  lab: Lab,
  pod: string,
  host: string,
  port: number,
): Promise<Client<HoldResult>> {
  const child = await lab.spawn(pod, [...programArgv('lab/demo/hold.ts'), host, String(port)], PIPED)
  const connected = Promise.withResolvers<void>()
  const client = clientOf<HoldResult>(child, line => {
    if (line === 'connected') connected.resolve()
  })
  await Promise.race([connected.promise, client.result])
  return client
}

const PIPED: SpawnOptions = { stdio: ['ignore', 'pipe', 'inherit'] }

function clientOf<R>(child: ChildProcess, onLine: (line: string) => void = () => undefined): Client<R> {
  let last = ''
  child.on('error', () => undefined) // 'close' comes too, and says that there is no result
  createInterface({ input: child.stdout! }).on('line', line => {
    last = line
    onLine(line)
  })
  const result = new Promise<R>((resolve, reject) => {
    child.once('close', () => {
      if (last.startsWith('{')) resolve(JSON.parse(last) as R)
      else
        reject(new CulvertError('LAB', `a client in a pod ended without a result${last ? `: ${last}` : ''}`))
    })
  })
  result.catch(() => undefined) // whoever asks for it hears of it
  return {
    result,
    stop: () => {
      child.kill('SIGTERM')
      return result
    },
  }
}
