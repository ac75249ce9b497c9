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

/** New connections to `url` from a pod, `rate` a second. Resolves once it is under way. */
export function startLoad(
  lab: Lab,
  pod: string,
  url: string,
  rate: number,
  seconds: number,
): Promise<Client<LoadResult>> {
  return startClient(lab, pod, ['lab/demo/load.ts', url, String(rate), String(seconds)], 'started')
}

/** One connection from a pod, kept busy. Resolves once it stands. */
export function holdConnection(
  lab: Lab,
  pod: string,
  host: string,
  port: number,
): Promise<Client<HoldResult>> {
  return startClient(lab, pod, ['lab/demo/hold.ts', host, String(port)], 'connected')
}

/** Starts a client program; resolves when it has said that it is under way. */
async function startClient<R>(
  lab: Lab,
  pod: string,
  [program = '', ...args]: string[],
  word: string,
): Promise<Client<R>> {
  const child = await lab.spawn(pod, [...programArgv(program), ...args], PIPED)
  return underWay<R>(child, word, () => void child.kill('SIGTERM'))
}

const PIPED: SpawnOptions = { stdio: ['ignore', 'pipe', 'inherit'] }

/**
 * The client that a child process is; resolves when it has said the word, or has ended. `tellToStop` makes it end in
 * order.
 */
export async function underWay<R>(
  child: ChildProcess,
  word: string,
  tellToStop: () => void,
): Promise<Client<R>> {
  const begun = Promise.withResolvers<void>()
  const client = clientOf<R>(child, tellToStop, line => {
    if (line === word) begun.resolve()
  })
  await Promise.race([begun.promise, client.result])
  return client
}

function clientOf<R>(child: ChildProcess, tellToStop: () => void, onLine: (line: string) => void): Client<R> {
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
      tellToStop()
      return result
    },
  }
}
