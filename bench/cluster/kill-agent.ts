/**
 * Kills the agent's process in its pod, on the pod's node; the container's first process is another one.
 *
 * usage: node kill-agent.ts POD-UID
 * Prints when, Unix milliseconds; exit status 1 when there is none.
 */
import { commandLine } from '../measure/processes.ts'
import { processesOf } from './pod-processes.ts'

const agent = processesOf(process.argv[2] ?? '').find(pid =>
  /\bnode\b.*agent\/main\.ts/.test(commandLine(pid)),
)
if (agent === undefined) process.exit(1)
const atMs = Date.now()
process.kill(agent, 'SIGKILL')
process.stdout.write(`${atMs}\n`)
