import t from 'tap'
import { availableParallelism } from 'node:os'
import { configFrom } from '../../agent/config.ts'
import { TUNNEL_HELP } from '../../agent/tunnel-config.ts'

const threadsOf = (THREADS?: string) => configFrom({ POD_SOURCE: 'static:/pods.json', THREADS }).threads

await t.test('one data-plane thread, or as many as asked for, or as the processors allow', t => {
  t.equal(threadsOf(), 1)
  t.equal(threadsOf('3'), 3)
  t.equal(threadsOf('auto'), Math.min(8, Math.max(1, Math.floor(availableParallelism() / 2))))
  for (const bad of ['0', '65', 'many', '1.5']) t.throws(() => threadsOf(bad), { code: 'CONFIG' })
  t.end()
})

await t.test('the runtime tells of pods where it can, unless told otherwise', t => {
  const nri = '/var/run/nri/nri.sock'
  for (const [POD_SOURCE, choice] of [
    [undefined, { kind: 'auto', socket: nri }],
    ['auto', { kind: 'auto', socket: nri }],
    ['nri', { kind: 'nri', socket: nri }],
    ['nri:/run/other:1.sock', { kind: 'nri', socket: '/run/other:1.sock' }],
    ['proc', { kind: 'proc' }],
    ['static:pods.json', { kind: 'static', file: 'pods.json' }],
  ] as const)
    t.strictSame(configFrom({ POD_SOURCE }).podSource, choice)
  for (const POD_SOURCE of ['static', 'static:', 'nri:', 'nri:relative', 'proc:x', 'auto:/x', 'cri', ':'])
    t.throws(() => configFrom({ POD_SOURCE }), {
      code: 'CONFIG',
      message: /^POD_SOURCE: .*is none of auto, nri/,
    })
  t.end()
})

await t.test('every problem is named at once', t => {
  t.throws(() => configFrom({ XDS_ADDRESS: 'http://ca:15012', THREADS: 'x', POD_SOURCE: 'cri' }), {
    code: 'CONFIG',
    message: /^(?=.*POD_SOURCE)(?=.*THREADS)(?=.*XDS_ADDRESS)/s,
  })
  t.end()
})

await t.test('every timeout and limit of the tunnel can be set, and has a name in the help', t => {
  const env = Object.fromEntries(
    TUNNEL_HELP.map(([name, fallback]) => [
      name,
      /^\d+$/.test(fallback) ? `${Number(fallback) + 1}` : '1234ms',
    ]),
  )
  const { tunnel } = configFrom({ POD_SOURCE: 'static:/pods.json', ...env })
  t.match(tunnel, {
    session: {
      streamWindow: 4_194_305,
      connectionWindow: 16_777_217,
      maxFrame: 1_048_577,
      prefaceTimeoutMs: 1234,
      pingIntervalMs: 1234,
      pingTimeoutMs: 1234,
    },
    pool: { maxStreams: 101, idleMs: 1234 },
    connectTimeoutMs: 1234,
    handshakeTimeoutMs: 1234,
    responseTimeoutMs: 1234,
    patienceMs: 1234,
    halfClosedMs: 1234,
    certificateWaitMs: 1234,
  })
  t.end()
})
