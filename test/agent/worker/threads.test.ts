import t, { type Test } from 'tap'
import { tunnelConfigFrom } from '../../../agent/tunnel-config.ts'
import { DEFAULT_PROXY } from '../../../agent/proxy/pod-context.ts'
import type { Control, ToWorker } from '../../../agent/worker/messages.ts'
import { DataPlaneThreads } from '../../../agent/worker/threads.ts'
import { Settings } from '../../../lib/settings.ts'
import { quietLog } from '../../helpers/quiet-log.ts'

const nobody: Control = {
  route: () => Promise.reject(new Error('nobody is asked')),
  admit: () => Promise.reject(new Error('nobody is asked')),
}

/** Threads, and the errors of those that have died. */
async function threadsFor(t: Test, count: number) {
  const deaths: string[] = []
  const died = Promise.withResolvers<void>()
  const ignore = () => undefined
  const threads = new DataPlaneThreads(
    nobody,
    {
      traffic: ignore,
      refusals: ignore,
      accessLog: ignore,
      counters: ignore,
      died: error => {
        deaths.push(error.message)
        died.resolve()
      },
    },
    quietLog().log,
  )
  t.teardown(() => threads.stop())
  await threads.start(count, {
    proxy: { ...DEFAULT_PROXY, ...tunnelConfigFrom(new Settings({})), clusterId: 'Kubernetes' },
    accessLog: { level: 'info', fields: {} },
  })
  return { threads, deaths, died: died.promise }
}

await t.test('a thread that dies by itself is told of, so that the process can end with it', async t => {
  const { threads, deaths, died } = await threadsFor(t, 2)
  threads.tell(null as unknown as ToWorker) // which no thread expects
  await died
  t.match(deaths[0], /null/)
})

await t.test('threads that are told to stop have not died', async t => {
  const { threads, deaths } = await threadsFor(t, 2)
  t.equal(threads.count, 2)
  t.strictSame(await threads.connections(), [])
  await threads.stop()
  t.strictSame(deaths, [])
})
