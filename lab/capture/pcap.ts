/** The pcap file format (draft-ietf-opsawg-pcap §4–5), little-endian, microseconds, Ethernet frames. */

/** Longer than any frame: offloading hands on up to 64 KiB and headers in one. */
export const SNAP_BYTES = 262_144

const LINKTYPE_ETHERNET = 1
export const FILE_HEADER_BYTES = 24
export const RECORD_HEADER_BYTES = 16

export function fileHeader(): Buffer {
  const header = Buffer.alloc(FILE_HEADER_BYTES)
  header.writeUInt32LE(0xa1b2c3d4, 0)
  header.writeUInt16LE(2, 4) // version 2.4
  header.writeUInt16LE(4, 6)
  header.writeUInt32LE(SNAP_BYTES, 16)
  header.writeUInt32LE(LINKTYPE_ETHERNET, 20)
  return header
}

/** What goes before a packet's bytes. `timeMs` is milliseconds since 1970. */
export function recordHeader(timeMs: number, capturedBytes: number, wholeBytes: number): Buffer {
  const header = Buffer.alloc(RECORD_HEADER_BYTES)
  const seconds = Math.floor(timeMs / 1000)
  header.writeUInt32LE(seconds, 0)
  header.writeUInt32LE(Math.floor((timeMs - seconds * 1000) * 1000), 4)
  header.writeUInt32LE(capturedBytes, 8)
  header.writeUInt32LE(wholeBytes, 12)
  return header
}

export interface Packet {
  readonly timeMs: number
  readonly bytes: Buffer
}

/** The packets of a capture that `fileHeader` and `recordHeader` made. A record that was cut short ends it. */
export function* packetsOf(pcap: Buffer): Generator<Packet> {
  for (let at = FILE_HEADER_BYTES; at + RECORD_HEADER_BYTES <= pcap.length;) {
    const timeMs = pcap.readUInt32LE(at) * 1000 + pcap.readUInt32LE(at + 4) / 1000
    const length = pcap.readUInt32LE(at + 8)
    at += RECORD_HEADER_BYTES
    if (at + length > pcap.length) return
    yield { timeMs, bytes: pcap.subarray(at, at + length) }
    at += length
  }
}
