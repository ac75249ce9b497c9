/**
 * A program: the API server of a simulated cluster, as far as a reflector asks it: lists in pages and watches of five
 * resources, over HTTPS and HTTP/1.1. Prints its port, then obeys its standard input: `churn RATE SECONDS` replaces so
 * many pods a second, writes when each new one was ready to the directory (ready.json: nanoseconds by key), and prints
 * how many. Usage: node api-server.ts DIRECTORY PODS. The directory has key.pem and cert.pem.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { nowNs } from '../clients/program.ts'
import { OtherObjects } from './other-objects.ts'
import { SimulatedCluster, type ResourceName } from './simulated-cluster.ts'

const RESOURCES: Readonly<Record<string, ResourceName>> = {
  '/api/v1/nodes': 'nodes',
  '/api/v1/namespaces': 'namespaces',
  '/api/v1/services': 'services',
  '/apis/discovery.k8s.io/v1/endpointslices': 'endpointslices',
  '/api/v1/pods': 'pods',
}
const BOOKMARK_MS = 60_000
/** Far from each other, so that pods of all services are replaced; coprime to every number of pods that is asked for. */
const STRIDE = 7919

const [directory = '', pods = ''] = process.argv.slice(2)
const others = new OtherObjects()
const watches = new Map<ResourceName, Set<ServerResponse>>()
const cluster = new SimulatedCluster(Number(pods), (resource, type, _, text) => {
  for (const response of watches.get(resource) ?? []) response.write(`{"type":"${type}","object":${text}}\n`)
})

const server = createServer(
  { key: readFileSync(join(directory, 'key.pem')), cert: readFileSync(join(directory, 'cert.pem')) },
  answer,
)
server.listen(0, '127.0.0.1', () => process.stdout.write(`${(server.address() as AddressInfo).port}\n`))

function answer(request: IncomingMessage, response: ServerResponse): void {
  response.on('error', () => undefined)
  const url = new URL(request.url ?? '/', 'https://server')
  const resource = RESOURCES[url.pathname]
  response.setHeader('content-type', 'application/json')
  if (!resource) answerOther(request, url.pathname, response)
  else if (url.searchParams.has('watch')) watch(resource, response)
  else list(resource, url.searchParams, response)
}

function answerOther(request: IncomingMessage, path: string, response: ServerResponse): void {
  let text = ''
  request.on('data', (chunk: Buffer) => (text += chunk.toString()))
  request.on('end', () => {
    const { status, body } = others.answer(
      request.method ?? '',
      path,
      JSON.parse(text || '{}') as Record<string, unknown>,
    )
    response.writeHead(status)
    response.end(JSON.stringify(body))
  })
}

function list(resource: ResourceName, query: URLSearchParams, response: ServerResponse): void {
  const from = Number(query.get('continue') ?? 0)
  const { texts, next } = cluster.list(resource, from, Number(query.get('limit') ?? Infinity))
  const metadata = {
    resourceVersion: `${cluster.version}`,
    ...(next !== undefined && { continue: `${next}` }),
  }
  response.end(
    `{"kind":"List","apiVersion":"v1","metadata":${JSON.stringify(metadata)},"items":[${texts.join()}]}`,
  )
}

function watch(resource: ResourceName, response: ServerResponse): void {
  response.flushHeaders()
  const all = watches.get(resource) ?? new Set()
  watches.set(resource, all.add(response))
  const bookmark = setInterval(() => {
    const metadata = { resourceVersion: `${cluster.version}` }
    response.write(`${JSON.stringify({ type: 'BOOKMARK', object: { metadata } })}\n`)
  }, BOOKMARK_MS)
  response.on('close', () => {
    clearInterval(bookmark)
    all.delete(response)
  })
}

/** Evenly: what a busy machine has made late is not made up for all at once. */
async function churn(perSecond: number, seconds: number): Promise<void> {
  const readyNs: Record<string, string> = {}
  const startMs = performance.now()
  const total = perSecond * seconds
  const running: Promise<void>[] = []
  for (let done = 0; done < total; done++) {
    const slot = (done * STRIDE) % cluster.pods
    running.push(cluster.replace(slot).then(key => void (readyNs[key] = nowNs().toString())))
    const waitMs = startMs + ((done + 1) * 1000) / perSecond - performance.now()
    if (waitMs > 0) await new Promise(resolve => setTimeout(resolve, waitMs))
  }
  await Promise.all(running)
  const took = (performance.now() - startMs) / 1000
  writeFileSync(join(directory, 'ready.json'), JSON.stringify(readyNs))
  process.stdout.write(`${JSON.stringify({ pods: total, seconds: took })}\n`)
}

createInterface({ input: process.stdin }).on('line', line => {
  const [verb, perSecond, seconds] = line.split(' ')
  if (verb === 'churn') void churn(Number(perSecond), Number(seconds))
})
