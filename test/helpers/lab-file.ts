/** Lab files for tests of the lab itself: two nodes without agents, so that only the lab's own doing is seen. */
import { readFileSync } from 'node:fs'
import { DEFAULT_LAB_FILE } from '../../lab/client/start.ts'

/** The default lab without any mesh: the same pods and services, nobody who captures their traffic. */
export function agentlessLab(): string {
  return readFileSync(DEFAULT_LAB_FILE, 'utf8').replaceAll(
    /^( {2}name: node-[ab])$/gm,
    '$1\n  annotations: { culvert.dev/agent: foreign }',
  )
}

/** Two nodes without agents and one pod in the namespace `default`. */
export function tinyLab(pods: readonly string[] = ['one']): string {
  const node = (name: string) =>
    `{ apiVersion: v1, kind: Node, metadata: { name: ${name}, annotations: { culvert.dev/agent: foreign } } }`
  return [node('node-a'), node('node-b'), ...pods.map(name => sleeper(name))].join('\n---\n')
}

/** A pod that does nothing, as a document of a lab file. */
export function sleeper(name: string, annotation = 'x'): string {
  return `{ apiVersion: v1, kind: Pod, metadata: { name: ${name}, annotations: { example.com/a: ${annotation} } },
  spec: { containers: [{ name: shell, command: [sleep, infinity] }] } }`
}
