/**
 * `node:http` for programs that are started often. Whoever imports `node:http` has all of its exports looked at, and three
 * of them are getters that load the whole of Node's `fetch`: 6 MB, and half of the processor time that an empty program
 * takes to start (Node 26: `WebSocket` and its events). Evaluated before the first import of `node:http`, this also spares
 * what libraries import. `fetch`, `Headers` and `WebSocket` stay what they are: they load it when they are used, as the
 * agent and the ca-server do for Connect.
 */
import type * as Http from 'node:http'

const http: typeof Http = process.getBuiltinModule('node:http')
for (const name of ['WebSocket', 'CloseEvent', 'MessageEvent'])
  if (Object.getOwnPropertyDescriptor(http, name)?.configurable)
    Object.defineProperty(http, name, { value: undefined })

export const { Agent, createServer, request } = http
export type Agent = Http.Agent
export type { IncomingMessage, RequestListener, RequestOptions, Server, ServerResponse } from 'node:http'
