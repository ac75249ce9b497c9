/** Files that are either the old contents or the new, whatever happens in between. */
import { open, rename, unlink } from 'node:fs/promises'
import { randomBytes } from 'node:crypto'

/** Replaces a file's contents; durable when the promise ends. `mode` is that of the new file. */
export async function replaceFile(path: string, text: string, mode: number): Promise<void> {
  const temporary = await writeTemporary(path, text, mode)
  await rename(temporary, path)
}

/** Writes `text` beside `path`, flushed to disk, and gives the name; the caller renames or links it. */
export async function writeTemporary(path: string, text: string, mode: number): Promise<string> {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`
  const file = await open(temporary, 'wx', mode)
  try {
    await file.writeFile(text)
    await file.sync()
  } catch (err) {
    await unlink(temporary).catch(() => undefined)
    throw err
  } finally {
    await file.close()
  }
  return temporary
}
