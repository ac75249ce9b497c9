/** Makes the path of a Unix socket free again after a process that could not clean up, and only then. */
import { lstat, unlink } from 'node:fs/promises'
import { connect } from 'node:net'
import { CulvertError, errorCode } from '../../lib/errors.ts'

// sun_path of sockaddr_un has 108 bytes, the last of them 0 (unix(7)).
const LONGEST_PATH = 107

/** Removes a socket that nobody serves. Throws `CONFIG` when somebody does, when the path is something else or too long. */
export async function claimSocketPath(path: string): Promise<void> {
  const bytes = Buffer.byteLength(path)
  if (bytes > LONGEST_PATH)
    throw new CulvertError(
      'CONFIG',
      `the socket path '${path}' has ${bytes} bytes; the kernel takes ${LONGEST_PATH}`,
    )
  const found = await lstat(path).catch((err: unknown) => {
    if (errorCode(err) === 'ENOENT') return undefined
    throw err
  })
  if (!found) return
  if (!found.isSocket()) throw new CulvertError('CONFIG', `'${path}' is there and is not a socket`)
  if (await isServed(path)) throw new CulvertError('CONFIG', `another process serves '${path}'`)
  await unlink(path)
}

function isServed(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ path })
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', err => resolve(errorCode(err) !== 'ECONNREFUSED' && errorCode(err) !== 'ENOENT'))
  })
}
