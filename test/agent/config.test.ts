import t from 'tap'
import { availableParallelism } from 'node:os'
import { configFrom } from '../../agent/config.ts'

const threadsOf = (THREADS?: string) => configFrom({ POD_SOURCE: 'static:/pods.json', THREADS }).threads

await t.test('one data-plane thread, or as many as asked for, or as the processors allow', t => {
  t.equal(threadsOf(), 1)
  t.equal(threadsOf('3'), 3)
  t.equal(threadsOf('auto'), Math.min(8, Math.max(1, Math.floor(availableParallelism() / 2))))
  for (const bad of ['0', '65', 'many', '1.5']) t.throws(() => threadsOf(bad), { code: 'CONFIG' })
  t.end()
})

await t.test('every problem is named at once', t => {
  t.throws(() => configFrom({ XDS_ADDRESS: 'http://ca:15012', THREADS: 'x' }), {
    code: 'CONFIG',
    message: /^(?=.*POD_SOURCE)(?=.*THREADS)(?=.*XDS_ADDRESS)/s,
  })
  t.end()
})
