/**
 * The supervisor's own interface: HTTP with JSON over a Unix socket in the run directory, which only the lab's
 * owner can reach. An error is answered with its code, message and hint, and thrown again on the other side.
 */
import { CulvertError, errorText } from '../../lib/errors.ts'
import { parseManifest } from '../../lib/kube/manifest.ts'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from '../../lib/plain-http.ts'
import { podPlaces, statusOf } from './status.ts'
import type { Supervisor } from './supervisor.ts'

/** Manifests of pods come through here; nobody writes longer ones by hand. */
const MAX_BODY_BYTES = 4 * 1024 * 1024

const SIGNAL = /^SIG[A-Z0-9]{2,8}$/

type Handler = (input: { parts: string[]; query: URLSearchParams; body: string }) => unknown

/** Serves the socket; `down` is called once when the lab is to end. */
export async function serveControl(supervisor: Supervisor, down: () => void): Promise<Server> {
  const routes = routesOf(supervisor, down)
  const server = createServer((request, response) => {
    answer(routes, request, response).catch(() => response.destroy())
  })
  // Waiting for a pod's agent may take longer than Node's default allows a request.
  server.requestTimeout = 0
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(supervisor.options.paths.control, resolve)
  })
  server.on('error', err => supervisor.warn(`the control socket failed: ${errorText(err)}`))
  return server
}

function routesOf(supervisor: Supervisor, down: () => void): ReadonlyMap<string, Handler> {
  return new Map<string, Handler>([
    ['GET status', () => statusOf(supervisor)],
    ['GET pods', () => podPlaces(supervisor)],
    ['POST pods', ({ body }) => addPods(supervisor, body)],
    [
      'DELETE pods',
      async ({ parts: [namespace, name], query }) => {
        const grace = query.get('grace')
        await supervisor.pods.remove(`Pod ${namespace}/${name}`, grace === null ? undefined : Number(grace))
        return {}
      },
    ],
    [
      'POST annotate',
      ({ body }) => {
        const { key, changes } = JSON.parse(body) as { key: string; changes: Record<string, string | null> }
        return supervisor.annotate(key, changes)
      },
    ],
    ['POST agents', ({ parts: [node = '', action = ''] }) => agentAction(supervisor, node, action)],
    ['POST ca-server', ({ parts: [action = ''] }) => caServerAction(supervisor, action)],
    [
      'POST kill',
      ({ parts: [part = ''], query }) => kill(supervisor, part, query.get('signal') ?? 'SIGKILL'),
    ],
    [
      'POST down',
      () => {
        down()
        return {}
      },
    ],
  ])
}

async function answer(
  routes: ReadonlyMap<string, Handler>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  request.on('error', () => undefined) // the caller has gone: nobody is left to tell
  response.on('error', () => undefined)
  const url = new URL(request.url ?? '/', 'http://lab')
  const [first = '', ...parts] = url.pathname.slice(1).split('/').map(decodeURIComponent)
  const handler = routes.get(`${request.method} ${first}`)
  const reply = (status: number, value: unknown) => {
    response.writeHead(status, { 'content-type': 'application/json' })
    response.end(`${JSON.stringify(value ?? {})}\n`)
  }
  if (!handler) {
    reply(404, { code: 'LAB', message: `the lab does not know ${request.method} ${url.pathname}` })
    return
  }
  try {
    reply(200, await handler({ parts, query: url.searchParams, body: await bodyOf(request) }))
  } catch (err) {
    const { code, hint } = err instanceof CulvertError ? err : { code: 'LAB', hint: undefined }
    reply(400, { code, message: errorText(err), hint })
  }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > MAX_BODY_BYTES) throw new CulvertError('LAB', `more than ${MAX_BODY_BYTES} bytes were sent`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

async function addPods(supervisor: Supervisor, manifest: string): Promise<unknown> {
  const objects = parseManifest(manifest, 'the pod')
  const pods = objects.filter(object => object.kind === 'Pod')
  if (pods.length === 0 || pods.length < objects.length)
    throw new CulvertError('INPUT', 'only pods can be added to a running lab this way', {
      hint: 'write other objects into the lab file: it is followed',
    })
  const added = await supervisor.addPods(pods)
  return added.map(({ key, pod, node, netns }) => ({
    key,
    node,
    netns,
    uid: pod.metadata.uid,
    ips: pod.status.podIPs,
  }))
}

async function agentAction(supervisor: Supervisor, node: string, action: string): Promise<unknown> {
  const agent = supervisor.parts.agents.get(node)
  if (!agent) throw unknownPart(supervisor, node)
  if (action === 'replace') await agent.replace()
  else if (action === 'stop') await agent.stop(supervisor.options.settings.graceSeconds * 1000)
  else if (action === 'start') agent.start()
  else throw new CulvertError('LAB', `an agent cannot be told to '${action}'`)
  return {}
}

async function caServerAction({ parts: { caServer } }: Supervisor, action: string): Promise<unknown> {
  if (action === 'stop') await caServer.stop('SIGTERM', 5000)
  else if (action === 'start') caServer.start()
  else throw new CulvertError('LAB', `the ca-server cannot be told to '${action}'`)
  return {}
}

function kill(supervisor: Supervisor, part: string, signal: string): unknown {
  const { caServer, agents } = supervisor.parts
  const target = part === 'ca-server' ? caServer : agents.get(part.replace(/^agent-/, ''))?.current
  if (!target) throw unknownPart(supervisor, part)
  if (!SIGNAL.test(signal)) throw new CulvertError('LAB', `'${signal}' is not a signal`)
  const { ref } = target
  if (!target.signal(signal as NodeJS.Signals)) throw new CulvertError('LAB', `${target.name} does not run`)
  return ref
}

function unknownPart(supervisor: Supervisor, part: string): CulvertError {
  const names = ['ca-server', ...[...supervisor.parts.agents.keys()].map(node => `agent-${node}`)]
  return new CulvertError('LAB', `the lab has no part '${part}'`, { hint: `it has ${names.join(', ')}` })
}
