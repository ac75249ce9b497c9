/**
 * Which sockets listen in a namespace, as the kernel tells when it is asked, or where it cannot be asked
 * `/proc/net/tcp` and `tcp6` (proc_net_tcp in the kernel's docs).
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { inNetns } from '../sys/netns.ts'
import { listeningHere } from '../sys/socket-diag.ts'

/** Listening sockets come first in these files, so the beginning is enough, however many connections are open. */
const READ_BYTES = 64 * 1024
const LISTEN = '0A'

/** The inodes of the sockets that listen in the namespace, by port. Throws `SYSCALL`. */
export function listeningSockets(netnsFd: number): Map<number, Set<bigint>> {
  return inNetns(netnsFd, listeningHere) ?? listeningByProc(netnsFd)
}

/** The same for every kernel, but slow: after the sockets that listen it looks at every connection of the machine. */
export function listeningByProc(netnsFd: number): Map<number, Set<bigint>> {
  const found = new Map<number, Set<bigint>>()
  for (const file of ['tcp', 'tcp6']) {
    for (const line of inNetns(netnsFd, () => beginning(`/proc/thread-self/net/${file}`)).split('\n')) {
      const fields = line.trim().split(/\s+/)
      const port = parseInt(fields[1]?.split(':')[1] ?? '', 16)
      const inode = fields[9]
      if (fields[3] !== LISTEN || Number.isNaN(port) || !inode || !/^\d+$/.test(inode)) continue
      const inodes = found.get(port) ?? new Set()
      found.set(port, inodes.add(BigInt(inode)))
    }
  }
  return found
}

function beginning(path: string): string {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch {
    return '' // no such family here
  }
  try {
    const buffer = Buffer.alloc(READ_BYTES)
    let length = 0
    for (let read = 1; read > 0 && length < READ_BYTES; length += read)
      read = readSync(fd, buffer, length, READ_BYTES - length, null)
    return buffer.toString('latin1', 0, length)
  } finally {
    closeSync(fd)
  }
}
