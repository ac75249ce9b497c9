/**
 * The admin port: what the agent knows and does, for the person in front of it and for the lab. Loopback and, when set, a
 * Unix socket of the owner's. Nothing that it shows contains a key or a token: the handlers are given values that never
 * had one. A browser on the same machine must not be led here by a web page, hence the checks of Host and Origin.
 */
import type { IncomingMessage } from 'node:http'
import type { Logger } from '../../lib/log.ts'
import { isLogLevel, LOG_LEVELS, type LogLevel } from '../../lib/log-level.ts'
import { CulvertError } from '../../lib/errors.ts'
import { HttpService, json, text, type HttpRoute } from './http-service.ts'

type Eventually<T> = T | Promise<T>

/** Each gives a JSON value. */
export interface AdminHandlers {
  configDump: () => Eventually<unknown>
  connections: () => Eventually<unknown>
  plaintext: () => Eventually<unknown>
  pods: () => Eventually<unknown>
  certificates: () => Eventually<unknown>
  /** Text for people: the rules of one pod, named by uid, name or namespace/name. Throws `INPUT` when there is none. */
  rules: (pod: string) => Eventually<string>
  logLevel: () => string
  setLogLevel: (level: LogLevel) => void
  /** Begins an orderly stop. */
  quit: () => void
}

export interface AdminServerOptions {
  handlers: AdminHandlers
  log: Logger
  /** On 127.0.0.1; 0 means any. Undefined: no TCP port. */
  port?: number | undefined
  /** Undefined: no Unix socket. */
  socketPath?: string | undefined
  /** Beside those of the handlers. */
  routes?: readonly HttpRoute[]
}

export class AdminServer {
  readonly #options: AdminServerOptions
  readonly #service: HttpService
  #port: number | undefined

  constructor(options: AdminServerOptions) {
    this.#options = options
    const routes = [...agentRoutes(options.handlers), ...(options.routes ?? [])]
    this.#service = new HttpService({
      routes: [indexRoute(routes), ...routes],
      log: options.log,
      refuse: refuseForeignPages,
    })
  }

  /** The TCP port, once it listens. */
  get port(): number | undefined {
    return this.#port
  }

  async start(): Promise<void> {
    const { port, socketPath } = this.#options
    if (port !== undefined) this.#port = await this.#service.listen(port, '127.0.0.1')
    if (socketPath !== undefined) await this.#service.listenUnix(socketPath)
  }

  close(): Promise<void> {
    return this.#service.close()
  }
}

function indexRoute(routes: readonly HttpRoute[]): HttpRoute {
  const listed = routes.filter(route => route.summary !== undefined)
  const width = Math.max(...listed.map(route => route.path.length))
  const lines = listed.map(
    ({ method, path, summary }) => `${method.padEnd(4)} ${path.padEnd(width)}  ${summary}`,
  )
  return { method: 'GET', path: '/', handle: () => text(`${lines.join('\n')}\n`) }
}

function agentRoutes(handlers: AdminHandlers): HttpRoute[] {
  const dump = (path: string, summary: string, read: () => Eventually<unknown>): HttpRoute => ({
    method: 'GET',
    path,
    summary,
    handle: async () => json(await read()),
  })
  return [
    dump(
      '/config_dump',
      'settings, workloads, services, policies, certificates (no keys)',
      handlers.configDump,
    ),
    dump('/connections', 'open connections', handlers.connections),
    dump(
      '/plaintext',
      'open connections that came to strict pods in plaintext, from before they were strict',
      handlers.plaintext,
    ),
    dump('/pods', 'pods of this node and their state', handlers.pods),
    dump('/certificates', 'certificate of each pod: state, validity, last error', handlers.certificates),
    {
      method: 'GET',
      path: '/rules',
      summary: '?pod=NAME: redirection rules of a pod, each with its reason',
      handle: async ({ query }) => {
        const pod = query.get('pod')
        if (!pod) throw new CulvertError('INPUT', 'name a pod: /rules?pod=NAME')
        return text(await handlers.rules(pod))
      },
    },
    dump('/debug/memory', 'memory of the process, in bytes', () => process.memoryUsage()),
    {
      method: 'GET',
      path: '/logging',
      summary: 'log level',
      handle: () => json({ level: handlers.logLevel() }),
    },
    {
      method: 'POST',
      path: '/logging',
      summary: `?level=${LOG_LEVELS.join('|')}: sets the log level`,
      handle: ({ query }) => {
        const level = query.get('level') ?? ''
        if (!isLogLevel(level))
          throw new CulvertError('INPUT', `'${level}' is not a log level; they are ${LOG_LEVELS.join(', ')}`)
        handlers.setLogLevel(level)
        return json({ level: handlers.logLevel() })
      },
    },
    {
      method: 'POST',
      path: '/quitquitquit',
      summary: 'drains and stops the agent',
      handle: () => {
        handlers.quit()
        return json({ stopping: true })
      },
    },
  ]
}

const OWN_HOST = /^(127\.0\.0\.1|localhost)(:\d{1,5})?$/i

/** A page of another site may send requests here, under a name of its own (DNS rebinding) or under ours (its Origin tells). */
function refuseForeignPages(request: IncomingMessage): string | undefined {
  const { host = '', origin } = request.headers
  if (!OWN_HOST.test(host)) return 'the admin port is called by 127.0.0.1 or localhost only'
  if (origin !== undefined && origin !== `http://${host}`)
    return 'the admin port takes no requests from other pages'
  return undefined
}
