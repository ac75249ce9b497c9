/** The world source on a real cluster, the one of `KUBECONFIG`. Makes one namespace there, and removes it. */
import { dirname } from 'node:path'
import t from 'tap'
import { openAccess } from '../../ca-server/kubernetes/access.ts'
import { ApiClient, ApiError, NoAnswerError } from '../../ca-server/kubernetes/api-client.ts'
import { WATCHED } from '../../ca-server/kubernetes/resources.ts'
import { kubernetesSource } from '../../ca-server/kubernetes/source.ts'
import { headOf } from '../../ca-server/kubernetes/watch-event.ts'
import { World, type WorldChange } from '../../ca-server/world/world.ts'
import { Backoff } from '../../lib/backoff.ts'
import type { KubeNamespace, KubeObject, KubePod } from '../../lib/kube/objects.ts'
import { quietLog } from '../helpers/quiet-log.ts'
import { canRestartApiServer, restartApiServer } from '../helpers/restart-api-server.ts'

const KUBECONFIG = process.env['KUBECONFIG'] ?? ''
const NAMESPACE = `culvert-source-${process.pid}`
const LIMITS = { silenceMs: 30_000, maxBytes: 64 * 1024 * 1024 }
const ROUNDS = 30

const client = new ApiClient(
  await openAccess({ kubeconfig: KUBECONFIG, host: undefined, port: 443, accountDirectory: '' }),
)
const stopping = new AbortController()
t.teardown(() => {
  stopping.abort()
  client.close()
})
const { signal } = stopping

/** A world kept by a source of its own, what it holds by kind and key, and a way to wait for it. */
async function keepWorld() {
  const world = new World()
  const held = new Map<string, KubeObject>()
  const listeners = new Set<() => void>()
  world.onChange((changes: readonly WorldChange[]) => {
    for (const { kind, key, after } of changes)
      if (after) held.set(`${kind} ${key}`, after)
      else held.delete(`${kind} ${key}`)
    for (const listener of listeners) listener()
  })
  const { log, lines } = quietLog()
  const ended = {
    listed: () => undefined,
    watchEnded: () => undefined,
    failed: () => undefined,
    event: () => undefined,
  }
  await kubernetesSource({ client, log, observe: () => ended }).start(world, signal)
  const until = (condition: () => boolean): Promise<void> =>
    new Promise(resolve => {
      const look = (): void => {
        if (!condition()) return
        listeners.delete(look)
        resolve()
      }
      listeners.add(look)
      look()
    })
  return { world, held, lines, until }
}

const { world, held, lines, until } = await keepWorld()

await t.test('everything that the API server has is there, and nothing is unreadable', async t => {
  await until(() => world.isSynced)
  for (const { name, kind, path } of WATCHED) {
    const list = (await client.get(path, {}, LIMITS, signal)) as { items: unknown[] }
    const keys = list.items.map(item => `${kind} ${headOf(item).key}`)
    await until(() => keys.every(key => held.has(key)))
    t.ok(keys.length > 0, `${keys.length} ${name}`)
  }
  const pods = [...held.values()].filter((object): object is KubePod => object.kind === 'Pod')
  t.ok(pods.some(({ status }) => status.phase === 'Running' && status.podIPs.length > 0))
  t.strictSame(
    lines.filter(({ level }) => level === 'warn'),
    [],
  )
})

await t.test('an annotation on a namespace is here within 100 ms', async t => {
  const path = `/api/v1/namespaces/${NAMESPACE}`
  await client.change('POST', '/api/v1/namespaces', { metadata: { name: NAMESPACE } }, LIMITS, signal)
  t.teardown(() => client.change('DELETE', path, {}, LIMITS, signal))
  await until(() => world.namespace(NAMESPACE) !== undefined)
  const fromSent: number[] = []
  const fromAnswered: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    const value = round % 2 === 0 ? 'enabled' : 'disabled'
    const arrived = until(() => annotationOf(world.namespace(NAMESPACE)) === value).then(() =>
      performance.now(),
    )
    const sentMs = performance.now()
    await client.change(
      'PATCH',
      path,
      { metadata: { annotations: { 'culvert.dev/mesh': value } } },
      LIMITS,
      signal,
    )
    const answeredMs = performance.now()
    const arrivedMs = await arrived
    fromSent.push(arrivedMs - sentMs)
    fromAnswered.push(Math.max(0, arrivedMs - answeredMs))
  }
  t.comment(`from the request: ${summary(fromSent)}; from its answer: ${summary(fromAnswered)}`)
  t.ok(median(fromSent) < 100)
})

const KIT = dirname(KUBECONFIG)
const isLocal = canRestartApiServer(KIT)
if (!isLocal) t.comment('this cluster is not ours to break: the API server is not restarted')
else
  await t.test(
    'the API server is started again: nothing is lost, and what happens next is heard',
    async t => {
      const gone: string[] = []
      world.onChange(changes =>
        gone.push(...changes.filter(({ after, key }) => !after && key !== NAMESPACE).map(({ key }) => key)),
      )
      const startMs = performance.now()
      await restartApiServer(KIT)
      await again(() => client.get('/readyz/etcd', {}, LIMITS, signal).catch(isPlainText))
      const upMs = performance.now()
      const name = `${NAMESPACE}-2`
      await again(() => client.change('POST', '/api/v1/namespaces', { metadata: { name } }, LIMITS, signal))
      t.teardown(() => client.change('DELETE', `/api/v1/namespaces/${name}`, {}, LIMITS, signal))
      await until(() => world.namespace(name) !== undefined)
      const [up, heard] = [upMs - startMs, performance.now() - upMs].map(Math.round)
      t.comment(`the API server was away for ${up} ms; ${heard} ms later an object made after that was here`)
      t.strictSame(gone, [])
      t.ok(lines.some(({ msg }) => msg.includes('trying again')))
    },
  )

await t.test('a fresh list says the same', async t => {
  const fresh = await keepWorld()
  await fresh.until(() => fresh.world.isSynced)
  const texts = (of: ReadonlyMap<string, KubeObject>) =>
    [...of.values()].map(object => JSON.stringify(object)).sort()
  await until(() => texts(held).join() === texts(fresh.held).join())
  t.strictSame(texts(held), texts(fresh.held))
})

/** Tries until the server takes it. */
async function again(work: () => Promise<unknown>): Promise<void> {
  const backoff = new Backoff({ maxMs: 500 })
  for (;;) {
    try {
      await work()
      return
    } catch (err) {
      if (!(err instanceof NoAnswerError) && !(err instanceof ApiError && err.status >= 500)) throw err
      await backoff.wait(signal)
    }
  }
}

/** A check of health is answered with a word. */
function isPlainText(err: unknown): void {
  if (!(err instanceof Error) || !err.message.endsWith('not JSON')) throw err
}

function annotationOf(namespace: KubeNamespace | undefined): string | undefined {
  return namespace?.metadata.annotations?.['culvert.dev/mesh']
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!
}

function summary(values: readonly number[]): string {
  return `p50 ${median(values).toFixed(1)} ms, max ${Math.max(...values).toFixed(1)} ms`
}
