/**
 * Pods made of real network namespaces, for tests that need root: each with a veth into a common bridge namespace,
 * an IPv4 and an IPv6 address. Everything is gone when the test ends.
 */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync } from 'node:fs'
import { createServer, Socket, type Server } from 'node:net'
import type { Test } from 'tap'
import { inNetns, openNetns } from '../../agent/sys/netns.ts'
import { connectSocket, listenTcp } from '../../agent/sys/socket.ts'

export interface TestPod {
  readonly name: string
  /** Name under /run/netns. */
  readonly netns: string
  readonly fd: number
  readonly ip: string
  readonly ip6: string
}

let worlds = 0

/** Makes one namespace per name, all reachable from each other. */
export function makePods(t: Pick<Test, 'teardown'>, names: readonly string[]): TestPod[] {
  const prefix = `culvert-t${process.pid}-${worlds++}`
  const bridge = `${prefix}-br`
  const made = [bridge, ...names.map(name => `${prefix}-${name}`)]
  const fds: number[] = []
  t.teardown(() => {
    for (const fd of fds) closeSync(fd)
    for (const netns of made) run('ip', ['netns', 'del', netns])
  })
  for (const netns of made) run('ip', ['netns', 'add', netns])
  batch(bridge, ['link set lo up', 'link add br0 type bridge', 'link set br0 up'])
  return names.map((name, index) => {
    const netns = `${prefix}-${name}`
    const ip = `10.77.0.${index + 1}`
    const ip6 = `fd77::${index + 1}`
    batch(bridge, [
      `link add p${index} type veth peer name eth0 netns ${netns}`,
      `link set p${index} master br0`,
      `link set p${index} up`,
    ])
    batch(netns, [
      'link set lo up',
      `addr add ${ip}/24 dev eth0`,
      `addr add ${ip6}/64 dev eth0 nodad`,
      'link set eth0 up',
      `route add default via 10.77.0.254 dev eth0 onlink`,
      `route add default via fd77::fe dev eth0 onlink`,
    ])
    const fd = openNetns(`/run/netns/${netns}`)
    fds.push(fd)
    return { name, netns, fd, ip, ip6 }
  })
}

/** Runs a program inside a pod and gives its output. */
export function inPod(pod: TestPod, command: string, args: readonly string[]): string {
  return run('ip', ['netns', 'exec', pod.netns, command, ...args])
}

/** An application that listens in the pod, on both families. */
export async function serve(
  t: Test,
  pod: TestPod,
  port: number,
  onConnection: (socket: Socket) => void,
): Promise<Server> {
  const fd = inNetns(pod.fd, () => listenTcp({ port }))
  const server = createServer({ allowHalfOpen: true }, socket => {
    socket.on('error', () => undefined)
    t.teardown(() => socket.destroy())
    onConnection(socket)
  })
  server.listen({ fd, backlog: 1024 })
  t.teardown(() => server.close())
  await once(server, 'listening')
  return server
}

/** An application in the pod that connects. Resolves once the kernel says connected; rejects with the errno. */
export async function connectFrom(
  t: Test,
  pod: TestPod,
  host: string,
  port: number,
  localPort?: number,
): Promise<Socket> {
  const socket = connectingFrom(t, pod, host, port, localPort)
  await once(socket, 'connect')
  socket.on('error', () => undefined)
  return socket
}

/** The same before the kernel has said anything: whoever does not wait for it listens for its error. */
export function connectingFrom(
  t: Test,
  pod: TestPod,
  host: string,
  port: number,
  localPort?: number,
): Socket {
  const fd = inNetns(pod.fd, () => connectSocket({ family: host.includes(':') ? 6 : 4, mark: 0 }))
  const socket = new Socket({ fd, allowHalfOpen: true, manualStart: true } as never)
  t.teardown(() => socket.destroy())
  return socket.connect({ host, port, ...(localPort !== undefined && { localPort }) })
}

/**
 * The errno with which a connection from the pod fails, at once or later; 'end' when it ends in order. In one process
 * a reset can overtake the news that the connection stands.
 */
export async function failureFrom(t: Test, pod: TestPod, host: string, port: number): Promise<string> {
  try {
    const socket = await connectFrom(t, pod, host, port)
    socket.resume()
    await once(socket, 'end')
    return 'end'
  } catch (err) {
    return (err as NodeJS.ErrnoException).code ?? String(err)
  }
}

function batch(netns: string, lines: readonly string[]): void {
  execFileSync('ip', ['-n', netns, '-batch', '-'], {
    input: lines.join('\n'),
    stdio: ['pipe', 'pipe', 'inherit'],
  })
}

function run(command: string, args: readonly string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
}
