/**
 * The files of one layer, by their path in the image. Programs and shared objects bring the libraries that the
 * dynamic linker would look for, where it would find them.
 */
import { spawnSync } from 'node:child_process'
import {
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  statSync,
} from 'node:fs'
import { dirname, join, normalize, resolve } from 'node:path'
import { CulvertError } from '../../lib/errors.ts'
import type { TarEntry } from './tar.ts'

const ELF = Buffer.from('\u007fELF', 'latin1')
/** As in every Debian of today: these are links into /usr. */
const MERGED = ['bin', 'sbin', 'lib', 'lib64']

export class FileTree {
  readonly #entries = new Map<string, TarEntry>()
  /** What other layers have: it is not added again. */
  readonly #below: readonly FileTree[]

  constructor(below: readonly FileTree[] = []) {
    this.#below = below
  }

  has(path: string): boolean {
    return this.#entries.has(path) || this.#below.some(tree => tree.has(path))
  }

  /** By path, each after its parents, which are made where nothing has made them. */
  entries(): TarEntry[] {
    const all = new Map(this.#entries)
    for (const path of this.#entries.keys())
      for (let parent = dirname(path); parent !== '.'; parent = dirname(parent))
        if (!all.has(parent) && !this.#below.some(tree => tree.has(parent)))
          all.set(parent, { kind: 'directory', path: parent, mode: 0o755 })
    return [...all.values()].sort((a, b) => (a.path < b.path ? -1 : 1))
  }

  directory(path: string, mode = 0o755): void {
    this.#put({ kind: 'directory', path: imagePath(path), mode })
  }

  link(path: string, target: string): void {
    this.#put({ kind: 'link', path: imagePath(path), target })
  }

  /** `/bin` and its like, which are links into /usr themselves. */
  mergeUsr(): void {
    for (const name of MERGED) {
      this.directory(`usr/${name}`)
      this.#put({ kind: 'link', path: name, target: `usr/${name}` })
    }
  }

  text(path: string, text: string, mode = 0o644): void {
    this.#put({ kind: 'file', path: imagePath(path), mode, bytes: Buffer.from(text) })
  }

  /**
   * A file of this machine with its libraries; a link comes with what it points at. Modes are 755 for what may be
   * executed and 644 for all else, whatever the umask was. Throws `INPUT` when it is not there.
   */
  file(source: string, path = source): void {
    const at = imagePath(path)
    if (this.has(at)) return
    if (!existsSync(source)) throw new CulvertError('INPUT', `${source} is not there`)
    if (lstatSync(source).isSymbolicLink() && path === source) {
      const target = readlinkSync(source)
      this.link(path, target)
      this.file(resolve(realpathSync(dirname(source)), target))
      return
    }
    const bytes = readFileSync(source)
    const mode = (statSync(source).mode & 0o111) === 0 ? 0o644 : 0o755
    this.#put({ kind: 'file', path: at, mode, bytes })
    if (bytes.subarray(0, 4).equals(ELF)) for (const library of librariesOf(source)) this.file(library)
  }

  /** Everything below a directory; `wants` is asked with paths relative to it. Links stay what they are. */
  tree(source: string, path: string, wants: (relative: string) => boolean = () => true): void {
    const walk = (relative: string) => {
      for (const { name } of readdirSync(join(source, relative), { withFileTypes: true })) {
        const below = join(relative, name)
        const from = join(source, below)
        if (!wants(below)) continue
        const info = lstatSync(from)
        if (info.isDirectory()) walk(below)
        else if (info.isSymbolicLink()) this.link(join(path, below), readlinkSync(from))
        else if (info.isFile()) this.file(from, join(path, below))
      }
    }
    walk('')
  }

  #put(entry: TarEntry): void {
    if (!this.has(entry.path)) this.#entries.set(entry.path, entry)
  }
}

/** Relative, and through no link of the root directory. */
function imagePath(path: string): string {
  const relative = normalize(`/${path}`).slice(1)
  return MERGED.includes(relative.split('/')[0]!) ? `usr/${relative}` : relative
}

const librariesFound = new Map<string, readonly string[]>()

/** The libraries that a program needs and where they are. A file that is linked statically needs none. */
function librariesOf(file: string): readonly string[] {
  const known = librariesFound.get(file)
  if (known) return known
  const { stdout } = spawnSync('ldd', [file], { encoding: 'utf8' })
  const found = stdout.split('\n').flatMap(line => {
    const [, path] = /^\s*(?:\S+ => )?(\/\S+) \(0x/.exec(line) ?? []
    return path === undefined ? [] : [path]
  })
  librariesFound.set(file, found)
  return found
}
