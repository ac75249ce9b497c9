/** A lab for a test file: named after the process, down when the test ends, whatever happens. */
import type { Test } from 'tap'
import { startLab, type Lab, type StartOptions } from '../../lab/lab.ts'

let labs = 0

export async function labFor(t: Test, options: StartOptions = {}): Promise<Lab> {
  const lab = await startLab({ name: `t${process.pid}_${labs++}`, graceSeconds: 3, ...options })
  t.teardown(() => lab.down())
  return lab
}

/** Failures of connections that were begun when the agent was up: those in flight when it died are its own. */
export function begunOutside(
  failures: readonly { readonly startedAtMs: number; readonly error: string }[],
  kills: readonly number[],
  inFlightMs = 250,
): string[] {
  return failures
    .filter(({ startedAtMs }) => !kills.some(at => startedAtMs <= at && startedAtMs > at - inFlightMs))
    .map(({ error }) => error)
}

/** A manifest of one pod that does nothing until something is run in it. */
export function idlePod(name: string, namespace: string, serviceAccount: string, node: string): string {
  return `apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: ${namespace}, annotations: { culvert.dev/lab-node: ${node} } }
spec:
  serviceAccountName: ${serviceAccount}
  containers: [{ name: idle, command: [sleep, infinity] }]
`
}
