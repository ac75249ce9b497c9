import t, { type Test } from 'tap'
import { RootPublisher } from '../../../ca-server/kubernetes/root-publisher.ts'
import { quietLog, type Line } from '../../helpers/quiet-log.ts'
import { StandInApi, type Json } from '../../helpers/stand-in-api.ts'

const PATH = '/api/v1/namespaces/culvert-system/configmaps/culvert-root'

interface Scene {
  api: StandInApi
  publisher: RootPublisher
  roots: string[]
  role: { isLeading: boolean }
  lines: Line[]
  start: () => void
  data: () => Json | undefined
}

async function scene(t: Test, checkMs = 60_000): Promise<Scene> {
  const api = await StandInApi.start(t)
  const { log, lines } = quietLog()
  const roots = ['one\n']
  const role = { isLeading: true }
  const publisher = new RootPublisher({
    api: api.client(t),
    namespace: 'culvert-system',
    configMap: 'culvert-root',
    roots: () => roots,
    isLeading: () => role.isLeading,
    log,
    checkMs,
  })
  const stopping = new AbortController()
  let running: Promise<void> | undefined
  t.teardown(async () => {
    stopping.abort()
    await running
  })
  return {
    api,
    publisher,
    roots,
    role,
    lines,
    start: () => void (running = publisher.run(stopping.signal)),
    data: () => api.objects.get(PATH)?.['data'] as Json | undefined,
  }
}

await t.test('roots are published, and anew when they change', async t => {
  const { api, publisher, roots, start, data } = await scene(t)
  start()
  await api.until(() => data()?.['root-cert.pem'] === 'one\n')
  roots.push('two\n')
  publisher.look()
  await api.until(() => data()?.['root-cert.pem'] === 'one\ntwo\n')
  publisher.look()
  await api.until(() => api.asked('GET', '/culvert-root').length === 3)
  t.equal(api.asked('PATCH', '/culvert-root').length, 1, 'what is right is left alone')
})

await t.test('whoever edits or removes them, they are put right', async t => {
  const { api, start, data } = await scene(t, 20)
  api.put(PATH, { metadata: { labels: { theirs: 'yes' } }, data: { 'root-cert.pem': 'a lie', more: 'kept' } })
  start()
  await api.until(() => data()?.['root-cert.pem'] === 'one\n')
  t.match(api.objects.get(PATH), { metadata: { labels: { theirs: 'yes' } }, data: { more: 'kept' } })
  api.objects.delete(PATH)
  await api.until(() => data()?.['root-cert.pem'] === 'one\n')
  t.pass('and again after it was removed')
})

await t.test('a replica that does not lead creates them, and overwrites nobody', async t => {
  const { api, publisher, role, roots, start, data } = await scene(t)
  role.isLeading = false
  start()
  await api.until(() => data()?.['root-cert.pem'] === 'one\n')
  roots[0] = 'newer\n'
  publisher.look()
  await api.until(() => api.asked('GET', '/culvert-root').length === 2)
  role.isLeading = true
  publisher.look()
  await api.until(() => data()?.['root-cert.pem'] === 'newer\n')
  t.equal(api.asked('PATCH', '/culvert-root').length, 1)
})

await t.test('what fails is tried again, and said', async t => {
  const { api, start, data, lines } = await scene(t)
  const faults = [{ status: 403 }, { status: 500 }, { status: 404 }, { status: 409 }] as const
  let at = 0
  api.fault = () => faults[at++]
  start()
  await api.until(() => data() !== undefined)
  t.equal(lines.filter(({ msg }) => msg === 'roots not published, trying again').length, 3)
})
