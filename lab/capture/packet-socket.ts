/**
 * A packet socket (packet(7)): every frame that one link of this network namespace sends or receives. Unlike
 * tcpdump it needs no other user to become, so it works in a lab without root, and it can be emptied to the
 * last frame before it is closed.
 */
import { readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { check, errnoName, int32, lastErrno, libc, syscallError } from '../../agent/sys/libc.ts'
import { CulvertError } from '../../lib/errors.ts'
import { SNAP_BYTES } from './pcap.ts'

// linux/if_packet.h, linux/if_ether.h, asm-generic/socket.h
const AF_PACKET = 17
const SOCK_RAW = 3
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
const ETH_P_ALL = 0x0003
const SOL_SOCKET = 1
const SO_RCVBUF = 8
const SO_RCVBUFFORCE = 33
const SOL_PACKET = 263
const PACKET_STATISTICS = 6
const MSG_TRUNC = 0x20

/** What the kernel may hold for us while we write: a burst of a fast link. */
const QUEUE_BYTES = 64 * 1024 * 1024

export class PacketSocket {
  readonly #fd: number
  readonly #buffer = Buffer.alloc(SNAP_BYTES)

  /** Listens on a link of the namespace that this process is in. Throws `SYSCALL`, or `LAB` when there is no such link. */
  constructor(link: string) {
    // Protocol 0: nothing comes in before it is bound to the link.
    const type = SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC
    this.#fd = check(libc.socket(AF_PACKET, type, 0), 'open a packet socket')
    const queue = int32(QUEUE_BYTES)
    // Past net.core.rmem_max only real root may go; others get as much as that, and hear of what did not fit.
    if (libc.setsockopt(this.#fd, SOL_SOCKET, SO_RCVBUFFORCE, queue, queue.length) < 0)
      check(libc.setsockopt(this.#fd, SOL_SOCKET, SO_RCVBUF, queue, queue.length), 'enlarge its queue')
    const address = Buffer.alloc(20)
    address.writeUInt16LE(AF_PACKET, 0)
    address.writeUInt16BE(ETH_P_ALL, 2)
    address.writeInt32LE(linkIndex(link), 4)
    check(libc.bind(this.#fd, address, address.length), `bind a packet socket to ${link}`)
  }

  /** The next frame, or undefined when there is none now. The bytes are the caller's. Throws `SYSCALL`. */
  read(): { bytes: Buffer; wholeBytes: number } | undefined {
    const whole = libc.recv(this.#fd, this.#buffer, this.#buffer.length, MSG_TRUNC)
    if (whole < 0) {
      const errno = lastErrno()
      if (errno === constants.errno.EAGAIN || errno === constants.errno.EINTR) return undefined
      // The link was taken down: nothing more will come.
      if (errnoName(errno) === 'ENETDOWN') return undefined
      throw syscallError(errno, 'read from a packet socket')
    }
    const captured = Math.min(whole, this.#buffer.length)
    return { bytes: Buffer.from(this.#buffer.subarray(0, captured)), wholeBytes: whole }
  }

  /** How many frames the kernel had to leave out since it was last asked. */
  dropped(): number {
    const counts = Buffer.alloc(8)
    const length = int32(counts.length)
    check(libc.getsockopt(this.#fd, SOL_PACKET, PACKET_STATISTICS, counts, length), 'count packets')
    return counts.readUInt32LE(4)
  }

  close(): void {
    libc.close(this.#fd)
  }
}

/** if_inet6 (proc_net(5)): address, index, prefix length, scope, flags, name; every link of a lab has IPv6. */
function linkIndex(link: string): number {
  const line = readFileSync('/proc/self/net/if_inet6', 'utf8')
    .split('\n')
    .map(text => text.trim().split(/\s+/))
    .find(fields => fields[5] === link)
  if (!line) throw new CulvertError('LAB', `there is no link '${link}' here`)
  return parseInt(line[1]!, 16)
}
