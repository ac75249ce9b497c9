/** Which files are rendered, and what each is made of. */
import { join } from 'node:path'
import { renderKustomization } from './kustomize.ts'

export interface RenderedFile {
  /** Relative to manifests/. */
  readonly file: string
  readonly from: string
}

export const RENDERED: readonly RenderedFile[] = [
  { file: 'culvert.yaml', from: 'overlays/default' },
  { file: 'culvert-strict.yaml', from: 'overlays/strict' },
  { file: 'culvert-existing-pki.yaml', from: 'overlays/existing-pki' },
  { file: 'monitoring.yaml', from: 'monitoring' },
]

/** The text of one file. Throws `INPUT`. */
export function renderFile(directory: string, from: string): string {
  const head = `# Made by npm run manifests from manifests/${from}: change that and not this.\n`
  const texts = renderKustomization(join(directory, from)).map(object =>
    object.toString({ lineWidth: 0, directives: false }),
  )
  return head + texts.join('---\n')
}
