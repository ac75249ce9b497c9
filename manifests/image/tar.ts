/**
 * Tar archives that depend on their contents alone (POSIX.1-1988 ustar, pax for what does not fit): entries sorted by
 * whoever calls, owner root, one fixed time. The same files give the same bytes on every machine.
 */
import { CulvertError } from '../../lib/errors.ts'

export type TarEntry =
  | { readonly kind: 'directory'; readonly path: string; readonly mode: number }
  | { readonly kind: 'link'; readonly path: string; readonly target: string }
  | { readonly kind: 'file'; readonly path: string; readonly mode: number; readonly bytes: Uint8Array }

const BLOCK = 512
/** 2026-01-01: any constant does; tools that show times show something sensible. */
const MTIME_SECONDS = 1_767_225_600
const TYPE = { file: '0', link: '2', directory: '5', pax: 'x' } as const
const LONGEST_NAME = 100

/** The archive, in the order of the entries. Paths are relative and without a final slash. Throws `INPUT`. */
export function tarOf(entries: Iterable<TarEntry>): Buffer {
  const blocks: Uint8Array[] = []
  for (const entry of entries) {
    if (entry.path === '' || entry.path.startsWith('/'))
      throw new CulvertError('INPUT', `'${entry.path}' is not a relative path`)
    const name = entry.kind === 'directory' ? `${entry.path}/` : entry.path
    const target = entry.kind === 'link' ? entry.target : ''
    const long = [
      ...(Buffer.byteLength(name) > LONGEST_NAME ? [record('path', name)] : []),
      ...(Buffer.byteLength(target) > LONGEST_NAME ? [record('linkpath', target)] : []),
    ]
    if (long.length > 0) {
      const bytes = Buffer.concat(long)
      blocks.push(header('pax', TYPE.pax, 0o644, bytes.length, ''), bytes, padding(bytes.length))
    }
    if (entry.kind === 'file') {
      const { bytes, mode } = entry
      blocks.push(header(name, TYPE.file, mode, bytes.length, ''), bytes, padding(bytes.length))
    } else blocks.push(header(name, TYPE[entry.kind], entry.kind === 'link' ? 0o777 : entry.mode, 0, target))
  }
  blocks.push(Buffer.alloc(2 * BLOCK))
  return Buffer.concat(blocks)
}

function header(name: string, type: string, mode: number, size: number, target: string): Buffer {
  const block = Buffer.alloc(BLOCK)
  const text = (at: number, length: number, value: string) => void block.write(value, at, length, 'utf8')
  const octal = (at: number, length: number, value: number) =>
    text(at, length, value.toString(8).padStart(length - 1, '0'))
  text(0, LONGEST_NAME, name)
  octal(100, 8, mode)
  octal(108, 8, 0)
  octal(116, 8, 0)
  octal(124, 12, size)
  octal(136, 12, MTIME_SECONDS)
  text(148, 8, ' '.repeat(8))
  text(156, 1, type)
  text(157, LONGEST_NAME, target)
  text(257, 8, 'ustar\u000000')
  text(265, 32, 'root')
  text(297, 32, 'root')
  const sum = block.reduce((total, byte) => total + byte, 0)
  text(148, 8, `${sum.toString(8).padStart(6, '0')}\0 `)
  return block
}

/** `LENGTH key=value\n`, where LENGTH counts itself. */
function record(key: string, value: string): Buffer {
  const rest = Buffer.from(` ${key}=${value}\n`)
  let length = rest.length
  while (String(length).length + rest.length > length) length = String(length).length + rest.length
  return Buffer.concat([Buffer.from(String(length)), rest])
}

function padding(size: number): Buffer {
  return Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK)
}
