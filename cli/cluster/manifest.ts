/** The objects that make up an installation: the rendered manifests of a profile, with the image that was asked for. */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { CulvertError } from '../../lib/errors.ts'
import { VERSION } from '../../lib/version.ts'
import type { KubeObject } from '../kubernetes/objects.ts'

/** Loaded by who needs it: every verb loads this file, and a parser takes as long to load as all the rest of a command. */
const yaml = () => createRequire(import.meta.url)('yaml') as typeof import('yaml')

export const PROFILES = {
  default: 'culvert.yaml',
  strict: 'culvert-strict.yaml',
  'existing-pki': 'culvert-existing-pki.yaml',
} as const
export type Profile = keyof typeof PROFILES

/** As the manifests have it. */
export const DEFAULT_IMAGE = `localhost/culvert:${VERSION}`

/** What the ca-server makes itself, beside what the manifests name. */
export const MADE_BY_CA_SERVER = {
  roots: '/api/v1/namespaces/culvert-system/configmaps/culvert-root',
  rootKey: '/api/v1/namespaces/culvert-system/secrets/culvert-ca-root',
} as const
/** Must be there before, with the profile existing-pki. */
export const INTERMEDIATE_SECRET = '/api/v1/namespaces/culvert-system/secrets/culvert-ca-intermediate'

/** In the order in which they are applied. */
export function objectsOf(profile: Profile, image = DEFAULT_IMAGE): KubeObject[] {
  const file = new URL(`../../manifests/${PROFILES[profile]}`, import.meta.url)
  const documents = yaml().parseAllDocuments(readFileSync(file, 'utf8'))
  const objects = documents.map(document => document.toJS() as KubeObject)
  for (const object of objects) setImage(object, image)
  return objects
}

/** A name with a tag or a digest. Throws `INPUT`. */
export function checkImage(image: string): string {
  const isNamed = /^[a-z0-9][\w./:-]*(:[\w][\w.-]{0,127}|@sha256:[0-9a-f]{64})$/i.test(image)
  if (!isNamed || image.endsWith(':latest'))
    throw new CulvertError('INPUT', `'${image}' is not an image with a tag`, {
      hint: 'like registry.example/culvert:0.1.0, and not :latest: two nodes must never run different ones by it',
    })
  return image
}

interface PodTemplate {
  readonly template?: { readonly spec?: { readonly containers?: { image: string }[] } }
}

function setImage({ spec }: KubeObject, image: string): void {
  for (const container of (spec as PodTemplate | undefined)?.template?.spec?.containers ?? [])
    container.image = image
}
