/**
 * A real HTTP server that stands in for a whole cluster's API server: keeps objects by path, lists them, applies, and has
 * hooks for what controllers and kubelets would do, and for what goes wrong.
 */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { Test } from 'tap'
import { pathOf, type KubeObject } from '../../cli/kubernetes/objects.ts'

export interface Asked {
  readonly method: string
  readonly path: string
  readonly query: URLSearchParams
}

export interface Answer {
  readonly status: number
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
}

type Loose = { apiVersion: string; kind: string; metadata: Record<string, unknown> } & Record<string, unknown>

export class StandInCluster {
  readonly objects = new Map<string, Loose>()
  readonly asked: Asked[] = []
  /** Asked before anything else; `cut` closes the connection. */
  fault: (asked: Asked) => Answer | 'cut' | undefined = () => undefined
  /** Told of every object that was made or changed, as controllers are. */
  reaction: (object: Loose, path: string) => void = () => undefined
  readonly #server: Server
  #version = 1

  private constructor(server: Server) {
    this.#server = server
  }

  /** With two nodes and the usual namespaces. */
  static async start(t: Test): Promise<StandInCluster> {
    const server = createServer((request, response) => {
      cluster.#serve(request, response).catch(() => response.destroy())
    })
    const cluster = new StandInCluster(server)
    server.listen({ port: 0, host: '127.0.0.1' })
    await once(server, 'listening')
    t.teardown(() => {
      server.close()
      server.closeAllConnections()
    })
    for (const name of ['node-a', 'node-b'])
      cluster.put('/api/v1/nodes/' + name, {
        apiVersion: 'v1',
        kind: 'Node',
        metadata: { name },
        status: {
          nodeInfo: {
            operatingSystem: 'linux',
            architecture: 'amd64',
            kernelVersion: '6.18',
            containerRuntimeVersion: 'containerd://2.2',
          },
        },
      })
    for (const name of ['default', 'kube-system']) cluster.add({ kind: 'Namespace', metadata: { name } })
    return cluster
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  /** Words for the command line that name this cluster. */
  words(t: Test): string[] {
    const directory = t.testdir({
      kubeconfig: JSON.stringify({
        apiVersion: 'v1',
        kind: 'Config',
        clusters: [
          {
            name: 'stand-in', // What plain HTTP is only taken with.
            cluster: { server: this.url, 'insecure-skip-tls-verify': true },
          },
        ],
        users: [{ name: 'me', user: {} }],
        contexts: [{ name: 'stand-in', context: { cluster: 'stand-in', user: 'me' } }],
        'current-context': 'stand-in',
      }),
    })
    return ['--kubeconfig', join(directory, 'kubeconfig')]
  }

  /** Puts an object of core/v1, unless it says otherwise, where it belongs. */
  add(object: Omit<KubeObject, 'apiVersion'> & { apiVersion?: string }): void {
    const whole = { apiVersion: 'v1', ...object } as KubeObject
    this.put(pathOf(whole), whole as unknown as Loose)
  }

  put(path: string, object: Loose): Loose {
    const before = this.objects.get(path)
    const kept = { ...object, metadata: { ...object.metadata } }
    kept.metadata['resourceVersion'] = String(++this.#version)
    kept.metadata['uid'] ??= before?.metadata['uid'] ?? `uid-${this.#version}`
    this.objects.set(path, kept)
    this.reaction(kept, path)
    return kept
  }

  /** By the end of their path. */
  paths(pattern: RegExp): string[] {
    return [...this.objects.keys()].filter(path => pattern.test(path))
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
    const url = new URL(request.url!, this.url)
    const asked = { method: request.method!, path: url.pathname, query: url.searchParams }
    this.asked.push(asked)
    const body = chunks.length > 0 ? (JSON.parse(Buffer.concat(chunks).toString()) as Loose) : undefined
    const answer = this.fault(asked) ?? this.#answer(asked, body)
    if (answer === 'cut') {
      response.destroy()
      return
    }
    const { status, body: said = { kind: 'Status', code: status, message: `stand-in says ${status}` } } =
      answer
    response.writeHead(status, { 'content-type': 'application/json', ...answer.headers })
    response.end(typeof said === 'string' ? said : JSON.stringify(said))
  }

  #answer({ method, path, query }: Asked, body: Loose | undefined): Answer {
    if (path === '/version') return { status: 200, body: { major: '1', minor: '34', gitVersion: 'v1.34.0' } }
    if (path.endsWith('/selfsubjectaccessreviews'))
      return { status: 201, body: { status: { allowed: true } } }
    const object = this.objects.get(path)
    if (method === 'GET') {
      if (object) return { status: 200, body: object }
      const items = this.#list(path, query.get('labelSelector'))
      return items ? { status: 200, body: { items } } : { status: 404 }
    }
    if (method === 'POST') {
      const own = `${path}/${String(body!.metadata['name'])}`
      if (this.objects.has(own)) return { status: 409 }
      const made = this.put(own, body!)
      // What a controller makes in every namespace.
      if (made.kind === 'Namespace')
        this.add({
          kind: 'ServiceAccount',
          metadata: { name: 'default', namespace: String(made.metadata['name']) },
        })
      return { status: 201, body: made }
    }
    if (method === 'PATCH') {
      const isApply = query.has('fieldManager')
      if (!object && !isApply) return { status: 404 }
      const next = merge(object ?? {}, body!) as Loose
      if (query.get('dryRun') === 'All' || (object && isSame(object, next)))
        return { status: 200, body: next }
      return { status: 200, body: this.put(path, next) }
    }
    if (!object) return { status: 404 }
    for (const other of this.objects.keys())
      if (other === path || (object.kind === 'Namespace' && other.includes(`${path}/`)))
        this.objects.delete(other)
    return { status: 200, body: {} }
  }

  /** Of one namespace, or of all; undefined for what is no list. */
  #list(path: string, labelSelector: string | null): Loose[] | undefined {
    const [, group, kind] = /^(.*?)(?:\/namespaces\/[^/]+)?\/([a-z]+)$/.exec(path) ?? []
    if (group === undefined || /\/log$|^\/api\/v1\/[a-z]+\/[^/]+$/.test(path)) return undefined
    const [key, value] = labelSelector?.split('=') ?? []
    const isOfAll = !path.includes('/namespaces/')
    return [...this.objects]
      .filter(([at]) => {
        const parent = at.slice(0, at.lastIndexOf('/'))
        return (
          parent === path ||
          (isOfAll && parent.startsWith(`${group}/namespaces/`) && parent.endsWith(`/${kind}`))
        )
      })
      .map(([, object]) => object)
      .filter(
        ({ metadata }) =>
          key === undefined || (metadata['labels'] as Record<string, string>)?.[key] === value,
      )
  }
}

/** Mappings are merged, null removes, everything else is replaced: near enough to what an apply of the whole object does. */
function merge(
  target: Readonly<Record<string, unknown>>,
  patch: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const merged: Record<string, unknown> = { ...target }
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key]
    else if (typeof value === 'object' && !Array.isArray(value))
      merged[key] = merge((merged[key] ?? {}) as Record<string, unknown>, value as Record<string, unknown>)
    else merged[key] = value
  }
  return merged
}

function isSame(a: Loose, b: Loose): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}
