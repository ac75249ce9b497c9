/**
 * Writes what passes a link of the namespace it is started in to standard output, as a pcap file. The file's
 * header comes when it listens. SIGTERM or SIGINT: everything that the kernel has seen is written, then it ends.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { errorText } from '../../lib/errors.ts'
import { PacketSocket } from './packet-socket.ts'
import { fileHeader, recordHeader } from './pcap.ts'

const POLL_MS = 2
/** Written at once; between two of these the output may push back. */
const BATCH_PACKETS = 256

let isEnding = false
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => (isEnding = true))
// Whoever reads may stop: then there is nobody to capture for.
process.stdout.on('error', () => process.exit(0))

function write(bytes: Buffer): Promise<void> {
  return new Promise(resolve => {
    process.stdout.write(bytes, () => resolve())
  })
}

try {
  const socket = new PacketSocket(process.argv[2] ?? 'eth0')
  await write(fileHeader())
  for (;;) {
    const wasEnding = isEnding
    const batch: Buffer[] = []
    while (batch.length < 2 * BATCH_PACKETS) {
      const packet = socket.read()
      if (!packet) break
      batch.push(recordHeader(Date.now(), packet.bytes.length, packet.wholeBytes), packet.bytes)
    }
    if (batch.length > 0) await write(Buffer.concat(batch))
    else if (wasEnding) break
    else await sleep(POLL_MS)
  }
  const dropped = socket.dropped()
  if (dropped > 0)
    process.stderr.write(`culvert lab: ${dropped} packets came too fast and are not in the capture\n`)
  socket.close()
} catch (err) {
  process.stderr.write(`culvert lab: ${errorText(err)}\n`)
  process.exitCode = 1
}
