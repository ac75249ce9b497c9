/**
 * Layers to an image in one tar that `ctr images import`, `docker load` and `kind load image-archive` take: an OCI
 * image layout (image-spec v1.1), and beside it the manifest.json that older Dockers read.
 */
import { createHash } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import { tarOf, type TarEntry } from './tar.ts'

export interface Layer {
  readonly name: string
  readonly tar: Buffer
}

export interface ImageOptions {
  /** `localhost/culvert:0.1.0` */
  readonly tag: string
  readonly architecture: 'amd64' | 'arm64'
  readonly layers: readonly Layer[]
  /** Smaller, and slower to make. @default false */
  readonly isCompressed?: boolean
  readonly env: readonly string[]
  readonly workingDir: string
  readonly command: readonly string[]
  readonly labels: Readonly<Record<string, string>>
}

export interface BuiltImage {
  readonly tar: Buffer
  /** Of the manifest. */
  readonly digest: string
  readonly layers: readonly {
    readonly name: string
    readonly digest: string
    /** As it is unpacked, and as it is in the tar. */
    readonly bytes: number
    readonly storedBytes: number
  }[]
}

const MEDIA = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.oci.image.layer.v1.tar',
} as const
/** Nothing in an image may depend on when it was made. */
const CREATED = '2026-01-01T00:00:00Z'

export function buildImage(options: ImageOptions): BuiltImage {
  const { tag, architecture, layers, isCompressed = false } = options
  const blobs = new Map<string, Uint8Array>()
  const blob = (bytes: Uint8Array, mediaType: string) => {
    const digest = sha256(bytes)
    blobs.set(digest, bytes)
    return { mediaType, digest, size: bytes.length }
  }
  const stored = layers.map(({ name, tar }) => {
    const bytes = isCompressed ? gzipSync(tar, { level: 6 }) : tar
    return {
      name,
      diffId: sha256(tar),
      bytes: tar.length,
      at: blob(bytes, isCompressed ? `${MEDIA.layer}+gzip` : MEDIA.layer),
    }
  })
  const config = blob(
    jsonBytes({
      created: CREATED,
      architecture,
      os: 'linux',
      config: {
        Env: options.env,
        WorkingDir: options.workingDir,
        Cmd: options.command,
        Labels: options.labels,
      },
      rootfs: { type: 'layers', diff_ids: stored.map(layer => layer.diffId) },
      history: stored.map(layer => ({ created: CREATED, created_by: layer.name })),
    }),
    MEDIA.config,
  )
  const manifest = blob(
    jsonBytes({
      schemaVersion: 2,
      mediaType: MEDIA.manifest,
      config,
      layers: stored.map(layer => layer.at),
    }),
    MEDIA.manifest,
  )
  const index = {
    schemaVersion: 2,
    mediaType: MEDIA.index,
    manifests: [
      {
        ...manifest,
        platform: { architecture, os: 'linux' },
        annotations: {
          'io.containerd.image.name': tag,
          'org.opencontainers.image.ref.name': tag.slice(tag.lastIndexOf(':') + 1),
        },
      },
    ],
  }
  const dockerManifest = [
    {
      Config: blobPath(config.digest),
      RepoTags: [tag],
      Layers: stored.map(layer => blobPath(layer.at.digest)),
    },
  ]
  const entries: TarEntry[] = [
    ...[...blobs].map(([digest, bytes]) => file(blobPath(digest), bytes)),
    file('index.json', jsonBytes(index)),
    file('manifest.json', jsonBytes(dockerManifest)),
    file('oci-layout', jsonBytes({ imageLayoutVersion: '1.0.0' })),
  ]
  return {
    tar: tarOf(entries),
    digest: manifest.digest,
    layers: stored.map(({ name, at, bytes }) => ({ name, digest: at.digest, bytes, storedBytes: at.size })),
  }
}

function file(path: string, bytes: Uint8Array): TarEntry {
  return { kind: 'file', path, mode: 0o644, bytes }
}

function blobPath(digest: string): string {
  return digest.replace('sha256:', 'blobs/sha256/')
}

function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}

function jsonBytes(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value))
}
