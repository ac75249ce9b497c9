/**
 * Where an authority's own root is kept: files here, a Secret in a cluster. What was kept once is never replaced, and
 * of several servers that begin at once the first one's root is everybody's.
 */
import { chmod, link, mkdir, readFile, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { CulvertError, errorCode } from '../../lib/errors.ts'
import { replaceFile, writeTemporary } from '../atomic-file.ts'

/** Key (PKCS #8) and certificate, PEM. */
export interface RootPem {
  readonly key: string
  readonly certificate: string
}

export interface RootStore {
  /** What messages call the two. */
  readonly names: { readonly key: string; readonly certificate: string }
  /** What is kept; a server that died may have left a part. Throws `PKI` when it cannot be read. */
  read(): Promise<Partial<RootPem>>
  /** Keeps a root where nothing is kept, and gives what is kept then: ours, or what somebody else was faster with. */
  keep(root: RootPem): Promise<Partial<RootPem>>
  /** Adds the certificate to a key that is kept without one. Throws `PKI` where that must not be. */
  complete(certificate: string): Promise<void>
}

/** A directory's `root-key.pem` and `root-cert.pem`. The key's file comes first and is never overwritten. */
export class FileRootStore implements RootStore {
  readonly names: RootStore['names']
  readonly #directory: string

  constructor(directory: string) {
    this.#directory = directory
    this.names = { key: join(directory, 'root-key.pem'), certificate: join(directory, 'root-cert.pem') }
  }

  async read(): Promise<Partial<RootPem>> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 })
    const key = await readIfThere(this.names.key)
    const certificate = await readIfThere(this.names.certificate)
    if (key !== undefined) await closeToOthers(this.names.key)
    return { ...(key !== undefined && { key }), ...(certificate !== undefined && { certificate }) }
  }

  async keep(root: RootPem): Promise<Partial<RootPem>> {
    const temporary = await writeTemporary(this.names.key, root.key, 0o600)
    try {
      await link(temporary, this.names.key) // unlike rename: of two servers starting at once the first one wins
    } catch (err) {
      if (errorCode(err) !== 'EEXIST') throw err
      return await this.read()
    } finally {
      await unlink(temporary)
    }
    await this.complete(root.certificate)
    return root
  }

  async complete(certificate: string): Promise<void> {
    await replaceFile(this.names.certificate, certificate, 0o644)
  }
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (err) {
    if (errorCode(err) === 'ENOENT') return undefined
    throw new CulvertError('PKI', `${path} cannot be read`, { cause: err })
  }
}

/** Takes away what group and others may do, as after a careless copy. */
async function closeToOthers(path: string): Promise<void> {
  const { mode } = await stat(path)
  if ((mode & 0o077) !== 0) await chmod(path, 0o600)
}
