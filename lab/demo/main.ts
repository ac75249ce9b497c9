/**
 * Culvert's main job, shown: two nodes and their pods made of real network namespaces, real agents and a real ca-server,
 * real traffic, and what was on the wire. Ends with "N passed, N failed" and leaves nothing behind.
 */
import { errorText } from '../../lib/errors.ts'
import { ensureTools } from '../../cli/setup/tools.ts'
import { downLab, startLab, type Lab } from '../lab.ts'
import { Narrator } from './narrator.ts'
import { tour } from './tour.ts'

const HELP = `usage: npm run demo [-- --json]

Builds a lab of two nodes and four pods on this machine (network namespaces, nothing of the machine's own network is
touched), shows that traffic between enrolled pods is mutual TLS on the wire while the applications know nothing of it,
breaks things, and takes the lab down. Takes less than 30 seconds.

  --json   one JSON object instead of the narration
  --help   this text

Exit status: 0 when every step passed, 1 when one failed, 69 when a tool is missing.
`

/** Short enough to see renewals, which come at half of it. */
const CERTIFICATE_TTL = '12s'

async function main(args: readonly string[]): Promise<number> {
  if (args.includes('--help')) {
    process.stdout.write(HELP)
    return 0
  }
  const unknown = args.find(arg => arg !== '--json')
  if (unknown !== undefined) {
    process.stderr.write(`culvert demo: unknown argument '${unknown}'\n\n${HELP}`)
    return 2
  }
  const isJson = args.includes('--json')
  ensureTools()
  const startedAt = performance.now()
  const narrator = new Narrator(isJson)
  narrator.heading('Culvert: mutual TLS for pods that know nothing of it')
  const name = `demo_${process.pid}`
  const interrupted = new AbortController()
  const interrupt = () => interrupted.abort()
  process.once('SIGINT', interrupt)
  process.once('SIGTERM', interrupt)
  let lab: Lab | undefined
  try {
    const isUp = await narrator.step(
      'a lab: two nodes, four pods, a ca-server, an agent on each node',
      async () => {
        lab = await startLab({ name, certTtl: CERTIFICATE_TTL, graceSeconds: 3, signal: interrupted.signal })
        return `up in ${((performance.now() - startedAt) / 1000).toFixed(1)} s`
      },
    )
    if (isUp && lab) await tour(lab, narrator, interrupted.signal)
  } finally {
    await narrator.step('nothing is left behind', async () => {
      await lab?.down()
      const left = await downLab(name)
      if (left !== undefined && left !== 'down')
        throw new Error(`left over: ${left.namespaces} namespaces, ${left.processes} processes`)
      return ''
    })
  }
  return narrator.finish(Math.round(performance.now() - startedAt))
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (err) {
  process.stderr.write(`culvert demo: ${errorText(err)}\n`)
  process.exitCode = 1
}
