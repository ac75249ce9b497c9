/** The clients of the lab's demo, started in pods of a cluster. */
import type { HoldResult } from '../../lab/demo/hold.ts'
import type { LoadResult } from '../../lab/demo/load.ts'
import { underWay, type Client } from '../../lab/demo/clients.ts'
import type { Kubectl, PodName } from './kubectl.ts'

/** Longer than any step takes: a client that is not told to stop ends by itself. */
const SECONDS = 300

/** New connections to `url` from a pod, `rate` a second. Resolves once it is under way. */
export function startLoad(
  kubectl: Kubectl,
  pod: PodName,
  url: string,
  rate: number,
  seconds: number = SECONDS,
): Promise<Client<LoadResult>> {
  return start(kubectl, pod, ['lab/demo/load.ts', url, String(rate), String(seconds)], 'started')
}

/** One connection from a pod, kept busy. Resolves once it stands. */
export function holdConnection(
  kubectl: Kubectl,
  pod: PodName,
  host: string,
  port: number,
): Promise<Client<HoldResult>> {
  return start(kubectl, pod, ['lab/demo/hold.ts', host, String(port)], 'connected')
}

function start<R>(kubectl: Kubectl, pod: PodName, argv: readonly string[], word: string): Promise<Client<R>> {
  const child = kubectl.spawnIn(pod, ['node', 'test/cluster/in-pod.ts', ...argv])
  return underWay<R>(child, word, () => void child.stdin?.end())
}
