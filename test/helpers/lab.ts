/** A lab for a test file: named after the process, down when the test ends, whatever happens. */
import { execPath } from 'node:process'
import type { Test } from 'tap'
import { startLab, type Lab, type StartOptions } from '../../lab/lab.ts'

let labs = 0

export async function labFor(t: Test, options: StartOptions = {}): Promise<Lab> {
  const lab = await startLab({ name: `t${process.pid}_${labs++}`, graceSeconds: 3, ...options })
  t.teardown(() => lab.down())
  return lab
}

/** Failures of connections that were not open when the agent was killed. Those that were are reset with all others. */
export function notOpenAt(
  kills: readonly number[],
  failures: readonly { readonly startedAtMs: number; readonly failedAtMs: number; readonly error: string }[],
): string[] {
  // The kill is noted a moment after it happened.
  const wasOpen = (at: number, { startedAtMs, failedAtMs }: (typeof failures)[number]) =>
    startedAtMs <= at && failedAtMs >= at - NOTED_WITHIN_MS && failedAtMs <= at + NOTED_WITHIN_MS
  return failures.filter(failure => !kills.some(at => wasOpen(at, failure))).map(({ error }) => error)
}

const NOTED_WITHIN_MS = 500

/**
 * The manifest with the lab's application replaced by HTTP on 8080 that does not end when it is told to: as a pod should,
 * until nobody sends it connections any more.
 */
export function patient(manifest: string): string {
  const command = JSON.stringify([
    execPath,
    '-e',
    `process.on('SIGTERM', () => {})
  const app = (request, response) => response.end(JSON.stringify({ pod: process.env.POD_NAME }, null, 1))
  require('http').createServer(app).listen(8080)`,
  ])
  return manifest.replace('image: culvert.dev/lab-app', `command: ${command}`)
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
