/**
 * The cluster as files: `cluster.yaml` for the ca-server and `pods.json` for each agent. Written soon after a
 * change, several changes at once, or on the spot by `flush()` where the order matters.
 */
import { stringifyManifest } from '../../lib/kube/manifest.ts'
import type { Cluster } from '../cluster/cluster.ts'
import { replaceFile } from '../files.ts'
import { nodePaths, type LabPaths } from '../names.ts'

export class WorldFiles {
  readonly #cluster: () => Cluster
  readonly #paths: LabPaths
  readonly #written = new Map<string, string>()
  #pending: NodeJS.Immediate | undefined
  #isClosed = false

  constructor(cluster: () => Cluster, paths: LabPaths) {
    this.#cluster = cluster
    this.#paths = paths
  }

  /** To be called after every change of the cluster. */
  schedule(): void {
    if (!this.#isClosed) this.#pending ??= setImmediate(() => this.flush())
  }

  /** Writes what has changed. Readers see the new state when this returns. */
  flush(): void {
    clearImmediate(this.#pending)
    this.#pending = undefined
    if (this.#isClosed) return
    const cluster = this.#cluster()
    this.#write(this.#paths.cluster, stringifyManifest(cluster.objects()))
    for (const { name } of cluster.nodes) {
      const text = JSON.stringify({ pods: cluster.localPods(name) }, undefined, 2)
      this.#write(nodePaths(this.#paths, name).pods, text)
    }
  }

  /** Writes no more: the lab's files are about to go. */
  close(): void {
    this.#isClosed = true
    clearImmediate(this.#pending)
  }

  #write(path: string, text: string): void {
    if (this.#written.get(path) === text) return
    replaceFile(path, text)
    this.#written.set(path, text)
  }
}
