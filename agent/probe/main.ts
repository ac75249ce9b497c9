/**
 * The program that `culvert check` and `culvert uninstall` run on a node, as a pod with the agent's own rights. It prints
 * one JSON value and ends; what it finds is no failure of its own, so its exit status is 0 whenever it could look.
 */
import { errorText } from '../../lib/errors.ts'
import { checkNode } from './check.ts'
import { cleanNode } from './clean.ts'

const USAGE = `What Culvert finds on a node, and what it leaves there.

usage: node agent/probe/main.ts check|clean

  check   tries what the agent does, in a network namespace of its own; changes nothing
  clean   takes away what agents have left in the network namespaces of pods: rules, routes, sockets, /run/culvert

NODE_NAME is this node's name. Prints one JSON value.
`

const [verb, ...rest] = process.argv.slice(2)
const work = verb === 'check' ? checkNode : verb === 'clean' ? cleanNode : undefined
if (verb === '--help' || verb === '-h') process.stdout.write(USAGE)
else if (!work || rest.length > 0) {
  process.stderr.write(USAGE)
  process.exitCode = 2
} else if (work === cleanNode && process.env['KUBERNETES_SERVICE_HOST'] === undefined) {
  // It looks into every network namespace that it can see: on a machine that is no node, those are somebody else's.
  process.stderr.write('culvert probe: this is not a pod of a cluster: nothing is cleaned here\n')
  process.exitCode = 2
} else {
  const alive = setInterval(() => undefined, 60_000) // children that run do not keep us from ending
  try {
    process.stdout.write(`${JSON.stringify(await work(process.env['NODE_NAME'] ?? ''))}\n`)
  } catch (err) {
    process.stderr.write(`culvert probe: ${errorText(err)}\n`)
    process.exitCode = 1
  }
  clearInterval(alive)
}
