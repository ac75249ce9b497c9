/**
 * The world from a file of Kubernetes objects, replaced atomically by whoever writes it. A file that cannot be
 * read, or holds nothing, changes nothing: the last good one stays in force.
 */
import { CulvertError, errorText } from '../../lib/errors.ts'
import { DocumentReader } from '../../lib/kube/documents.ts'
import { parseManifest } from '../../lib/kube/manifest.ts'
import type { Logger } from '../../lib/log.ts'
import { FileWatch } from '../file-watch.ts'
import type { WorldSource } from './source.ts'

export interface FileSourceOptions {
  readonly file: string
  readonly log: Logger
  /** Called for each state of the file that could not be used. */
  readonly failed?: () => void
}

export function fileSource(options: FileSourceOptions): WorldSource {
  const { file, log } = options
  const failed = (err: unknown): void => {
    log.error({ file, err: errorText(err) }, 'world file not usable, nothing changes')
    options.failed?.()
  }
  const reader = new DocumentReader()
  let isLoaded = false
  return {
    pending: () => (isLoaded ? [] : [`the first usable ${file}`]),
    async start(world, signal) {
      const watch = new FileWatch({
        paths: [file],
        load([text]) {
          const objects = parseManifest(text!, file, reader)
          if (objects.length === 0) throw new CulvertError('INPUT', `${file} holds no objects`)
          world.replaceAll(objects)
          isLoaded = true
          log.debug({ file, objects: objects.length }, 'world file loaded')
        },
        failed,
      })
      await watch.loadNow().catch(failed)
      watch.follow(signal)
    },
  }
}
