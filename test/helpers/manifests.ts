/** The rendered manifests as objects, and the parts of them that tests ask for. */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { V1Container, V1PodSpec } from '@kubernetes/client-node'
import { parseAllDocuments } from 'yaml'
import { RENDERED } from '../../manifests/render/files.ts'

export const MANIFESTS: string = fileURLToPath(new URL('../../manifests/', import.meta.url))

export interface Manifest extends Record<string, unknown> {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: {
    readonly name: string
    readonly namespace?: string
    readonly labels?: Record<string, string>
    readonly annotations?: Record<string, string>
  }
}

export function objectsOf(file: string): Manifest[] {
  return parseAllDocuments(readFileSync(`${MANIFESTS}${file}`, 'utf8')).map(
    document => document.toJS() as Manifest,
  )
}

export const FILES: readonly string[] = RENDERED.map(({ file }) => file)
/** Those that install Culvert; the rest is beside them. */
export const INSTALLS: readonly string[] = FILES.filter(file => file.startsWith('culvert'))

export function find(objects: readonly Manifest[], kind: string, name: string): Manifest {
  const found = objects.find(object => object.kind === kind && object.metadata.name === name)
  if (!found) throw new Error(`no ${kind} ${name}`)
  return found
}

export interface Workload {
  readonly spec: {
    readonly selector: { readonly matchLabels: Record<string, string> }
    readonly template: {
      readonly metadata: { readonly labels: Record<string, string> }
      readonly spec: V1PodSpec
    }
  }
}

/** What runs containers. */
export function workloads(objects: readonly Manifest[]): (Manifest & Workload)[] {
  return objects.filter(({ kind }) => kind === 'Deployment' || kind === 'DaemonSet') as (Manifest &
    Workload)[]
}

export function containersOf(objects: readonly Manifest[]): V1Container[] {
  return workloads(objects).flatMap(({ spec }) => [
    ...spec.template.spec.containers,
    ...(spec.template.spec.initContainers ?? []),
  ])
}
