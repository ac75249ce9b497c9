/**
 * Culvert on a cluster beside what a real Istio ambient did on one of the same make: the same faults, the same figures,
 * a row each.
 */
import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { errorText, CulvertError } from '../../lib/errors.ts'
import { unlessAborted } from '../../lib/unless-aborted.ts'
import { openCluster } from '../../test/cluster/local.ts'
import { prepare } from '../../test/cluster/prepare.ts'
import { describeCommit, describeMachine } from '../machine.ts'
import { AMBIENT } from './ambient.ts'
import { measureComingIn } from './coming-in.ts'
import { measureDataPath } from './data-path.ts'
import { measureFaults } from './faults.ts'
import { measureRest } from './rest.ts'
import { tableOf, TITLES, type Results } from './table.ts'
import { startPairs, whenObserved, type BenchWorld } from './world.ts'

const HELP = `usage: npm run bench:cluster [-- OPTIONS]

Installs Culvert on the cluster that KUBECONFIG names, or on a local one (see npm run test:cluster -- --help), measures
what a real Istio ambient was measured by, and prints both beside each other. Takes about ten minutes.

  --rounds N      of the data path and of enrolment (default: 7)
  --only PART     rest, coming-in, data-path or faults
  --json FILE     everything that was measured
  --image NAME, --app-image NAME   as for npm run test:cluster
  --help          this text

Exit status: 0, or 1 when something could not be measured, 2 for a wrong command line, 130 when interrupted.
`

const PARTS = {
  'coming-in': measureComingIn,
  rest: measureRest,
  'data-path': measureDataPath,
  faults: measureFaults,
} as const

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '7' },
      only: { type: 'string' },
      json: { type: 'string' },
      image: { type: 'string' },
      'app-image': { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(HELP)
    return 0
  }
  const rounds = Number(values.rounds)
  const { only } = values
  if (!Number.isInteger(rounds) || rounds < 1)
    throw new TypeError(`--rounds: '${values.rounds}' is no number of rounds`)
  if (only !== undefined && !Object.hasOwn(PARTS, only))
    throw new TypeError(`--only: '${only}' is not one of ${Object.keys(PARTS).join(', ')}`)
  const startedAt = new Date().toISOString()
  const machine = describeMachine()
  const progress = (what: string) => process.stderr.write(`bench: ${what}\n`)
  progress('a cluster')
  const cluster = await openCluster()
  const interrupted = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupted.abort())
  const results: Results = {}
  const gaps: Record<string, string> = {}
  try {
    progress('images and installation')
    const prepared = await prepare(cluster, { image: values.image, appImage: values['app-image'] })
    await prepared.install()
    const world: BenchWorld = { ...prepared, rounds, progress }
    await startPairs(world)
    for (const [name, measure] of Object.entries(PARTS)) {
      if ((only !== undefined && only !== name) || interrupted.signal.aborted) continue
      try {
        if (name !== 'coming-in') await enrolled(world)
        Object.assign(results, await unlessAborted(measure(world), interrupted.signal))
      } catch (err) {
        gaps[name] = errorText(err)
        progress(`${name} could not be measured: ${errorText(err)}`)
      }
    }
  } finally {
    await cluster.down()
  }
  if (interrupted.signal.aborted) return 130
  process.stdout.write(tableOf(results, process.stdout.isTTY))
  if (values.json !== undefined) {
    const { commit, isDirty } = await describeCommit()
    const rows = Object.entries(AMBIENT).map(([id, ambient]) => ({
      id,
      title: TITLES[id as keyof typeof TITLES],
      ambient,
      culvert: results[id as keyof typeof TITLES],
    }))
    const run = {
      startedAt,
      finishedAt: new Date().toISOString(),
      commit,
      isDirty,
      machine,
      rounds,
      rows,
      gaps,
    }
    await writeFile(values.json, `${JSON.stringify(run, undefined, 2)}\n`)
  }
  return Object.keys(gaps).length === 0 ? 0 : 1
}

async function enrolled(world: BenchWorld): Promise<void> {
  await world.kubectl.annotate('namespace/bench-mesh', 'culvert.dev/mesh', 'enabled')
  await whenObserved(world, 'enrolled')
}

try {
  process.exitCode = await main()
} catch (err) {
  process.stderr.write(`culvert bench: ${errorText(err)}\n`)
  if (err instanceof CulvertError && err.hint) process.stderr.write(`hint: ${err.hint}\n`)
  process.exitCode = err instanceof TypeError ? 2 : 1
}
