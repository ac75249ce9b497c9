/**
 * A stand-in for a whole API server, over TLS: what is listed and watched, what the ca-server keeps and writes, and
 * tokens, which it takes for what they say. Replicas find it as they do in a pod.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { unverifiedClaims } from '../../ca-server/tokens/claims.ts'
import type { KubeObject } from '../../lib/kube/objects.ts'
import { ApiServer } from './api-server.ts'
import { temporaryDirectory } from './ca-server.ts'
import { merge, StandInApi, type ApiAnswer, type ApiRequest, type Json } from './stand-in-api.ts'
import { createRoot, issueServer } from './test-pki.ts'

export class ControlPlane {
  readonly watched: ApiServer
  readonly kept: StandInApi
  /** Of a ca-server that is to find it. */
  readonly env: Readonly<Record<string, string>>

  private constructor(watched: ApiServer, kept: StandInApi, accountDirectory: string) {
    this.watched = watched
    this.kept = kept
    this.env = {
      WORLD_FILE: '',
      JWKS_FILE: '',
      TOKEN_ISSUER: '',
      KUBERNETES_SERVICE_HOST: 'localhost',
      KUBERNETES_SERVICE_PORT: `${watched.port}`,
      SERVICE_ACCOUNT_DIR: accountDirectory,
      POD_NAMESPACE: 'culvert-system',
    }
    kept.fault = request => this.#pod(request) ?? review(request)
    watched.other = (request, response) => kept.serve(request, response)
  }

  static async start(t: Test, objects: readonly KubeObject[]): Promise<ControlPlane> {
    const root = await createRoot('cluster')
    const accountDirectory = temporaryDirectory(t)
    writeFileSync(join(accountDirectory, 'ca.crt'), root.pem)
    writeFileSync(join(accountDirectory, 'token'), 'of the ca-server')
    const { key, cert } = await issueServer(root)
    const watched = await ApiServer.start(t, { key, cert })
    watched.put(...objects)
    return new ControlPlane(watched, await StandInApi.start(t), accountDirectory)
  }

  /** The status annotation of a pod, `namespace/name`. */
  status(pod: string): unknown {
    const metadata = this.watched.get('Pod', pod)?.['metadata'] as { annotations?: Json } | undefined
    return metadata?.annotations?.['culvert.dev/status']
  }

  /** Changes of pods are seen by who watches them. */
  #pod({ method, path, body }: ApiRequest): ApiAnswer | undefined {
    const [, namespace, name] = /^\/api\/v1\/namespaces\/([^/]+)\/pods\/([^/]+)$/.exec(path) ?? []
    if (method !== 'PATCH' || name === undefined) return undefined
    const key = `${namespace}/${name}`
    const pod = this.watched.get('Pod', key)
    if (!pod) return { status: 404 }
    if ((pod['metadata'] as Json)['uid'] !== (body['metadata'] as Json)['uid']) return { status: 409 }
    this.watched.putRaw('Pod', key, merge(pod, body))
    return { status: 200, body: this.watched.get('Pod', key)! }
  }
}

function review({ path, body }: ApiRequest): ApiAnswer | undefined {
  if (!path.endsWith('/tokenreviews')) return undefined
  const { token, audiences } = body['spec'] as { token: string; audiences: string[] }
  const username = (unverifiedClaims(token) as Json | undefined)?.['sub']
  return { status: 201, body: { status: { authenticated: true, audiences, user: { username } } } }
}
