/**
 * Looking at a node and into the namespaces of its pods, from a privileged pod on it. Everything that is said here comes
 * from the kernel, and nothing from an agent.
 */
import { CulvertError } from '../../lib/errors.ts'
import type { Ran } from '../../lab/run.ts'
import type { KubeJson, Kubectl, PodName } from './kubectl.ts'

/** Prints the number of a process of the pod with the uid `$1`, as cgroups of either version and driver name it. */
const FIND_PROCESS = `
  a=$1; b=$(echo $1 | tr - _)
  for p in /proc/[0-9]*; do
    if grep -qe "$a" -e "$b" $p/cgroup 2>/dev/null; then echo \${p#/proc/}; exit 0; fi
  done
  echo "no process of pod $1" >&2; exit 1`

export class Eyes {
  readonly #kubectl: Kubectl
  readonly #podOf: ReadonlyMap<string, PodName>

  private constructor(kubectl: Kubectl, podOf: ReadonlyMap<string, PodName>) {
    this.#kubectl = kubectl
    this.#podOf = podOf
  }

  /** On every node where the pods of `eyes.yaml` run. */
  static async open(kubectl: Kubectl): Promise<Eyes> {
    const pods = await kubectl.list('pods', '-n', 'culvert-test', '-l', 'app=eyes')
    return new Eyes(
      kubectl,
      new Map(pods.map(pod => [nodeOf(pod), `culvert-test/${pod.metadata.name}` as const])),
    )
  }

  /** Runs a program in the node's own namespaces. */
  onNode(node: string, argv: readonly string[]): Promise<Ran> {
    return this.#kubectl.exec(this.#on(node), argv)
  }

  /** Runs a program in the pod's network namespace, as the node's root. Throws `KUBERNETES` when it fails. */
  async inPod(pod: KubeJson, argv: readonly string[]): Promise<string> {
    const node = nodeOf(pod)
    const enter = `pid=$(sh -c '${FIND_PROCESS}' sh "$1") || exit 1; shift; exec nsenter --net=/proc/$pid/ns/net -- "$@"`
    const ran = await this.onNode(node, ['sh', '-c', enter, 'sh', pod.metadata.uid, ...argv])
    if (ran.code === 0) return ran.stdout.toString()
    throw new CulvertError(
      'KUBERNETES',
      `${argv.join(' ')} in pod ${pod.metadata.name}: ${ran.stderr.trim()}`,
    )
  }

  /** Every packet rule of the pod, both families; and its policy routing. */
  async rulesOf(pod: KubeJson): Promise<string> {
    return await this.inPod(pod, ['sh', '-c', 'iptables-save; ip6tables-save; ip rule; ip -6 rule'])
  }

  /** Captures what passes the device that leads to the other nodes. */
  async capture(node: string): Promise<NodeCapture> {
    const route = await this.onNode(node, ['sh', '-c', 'ip -o route get 192.0.2.1 2>/dev/null || ip -o link'])
    const device = /dev (\S+)/.exec(route.stdout.toString())?.[1] ?? 'eth0'
    return await NodeCapture.start(this.#kubectl, this.#on(node), device)
  }

  #on(node: string): PodName {
    const pod = this.#podOf.get(node)
    if (pod) return pod
    throw new CulvertError('KUBERNETES', `there is no pod to look at node ${node} with`)
  }
}

/**
 * Captures to a file, since what is sent away while it goes on would be captured, too. Says so when it listens, and when
 * standard input ends gives the file.
 */
const CAPTURE = `
  file=$(mktemp)
  node lab/capture/main.ts "$1" >$file & pid=$!
  until [ -s $file ]; do kill -0 $pid || exit 1; sleep 0.02; done
  echo listening
  cat >/dev/null
  kill -TERM $pid; wait $pid
  cat $file; rm $file`
const LISTENING = 'listening\n'

/** A capture under way: stopped, it gives every packet that the device saw. */
export class NodeCapture {
  readonly #chunks: Buffer[] = []
  readonly #closed: Promise<void>
  readonly #tellToStop: () => void

  private constructor(closed: Promise<void>, tellToStop: () => void) {
    this.#closed = closed
    this.#tellToStop = tellToStop
  }

  static async start(kubectl: Kubectl, eyes: PodName, device: string): Promise<NodeCapture> {
    const child = kubectl.spawnIn(eyes, ['sh', '-c', CAPTURE, 'sh', device])
    child.on('error', () => undefined) // 'close' comes too
    const closed = new Promise<void>(resolve => child.once('close', () => resolve()))
    const capture = new NodeCapture(closed, () => void child.stdin?.end())
    const listening = Promise.withResolvers<boolean>()
    child.stdout!.on('data', (chunk: Buffer) => {
      capture.#chunks.push(chunk)
      listening.resolve(true)
    })
    if (await Promise.race([listening.promise, closed.then(() => false)])) return capture
    throw new CulvertError('TOOL', `nothing can be captured on ${device} of ${eyes}`)
  }

  /** The capture as a pcap file's bytes. */
  async stop(): Promise<Buffer> {
    this.#tellToStop()
    await this.#closed
    return Buffer.concat(this.#chunks).subarray(LISTENING.length)
  }
}

export function nodeOf(pod: KubeJson): string {
  return pod.spec.nodeName ?? ''
}

export function ipOf(pod: KubeJson): string {
  return pod.status.podIP ?? ''
}
