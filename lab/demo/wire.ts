/** Looks at what was on the wire between nodes, as an auditor would: every TCP flow, byte by byte. */
import { Cidr } from '../../lib/address.ts'
import { expect } from './narrator.ts'
import { tcpFlows, tlsVersionChosen } from './tcp-flows.ts'

const TLS_1_3 = 0x0304
const HBONE = 15008

/** Reports whether any flow of the capture holds the text. */
export function wireHolds(pcap: Buffer, text: string): boolean {
  return tcpFlows(pcap).some(({ bytes }) => bytes.includes(text))
}

/**
 * Checks that everything between pods is TLS 1.3 on 15008 and that none of it holds one of the texts. Gives a
 * sentence of what was seen. Throws `LAB` with what should not be there.
 */
export function checkEncrypted(
  pcap: Buffer,
  podCidrs: readonly string[],
  secrets: readonly string[],
): string {
  const ranges = podCidrs.map(text => Cidr.parse(text))
  const isPod = (ip: string) => ranges.some(range => range.contains(ip))
  const flows = tcpFlows(pcap).filter(({ source, destination }) => isPod(source.ip) && isPod(destination.ip))
  let bytes = 0
  let handshakes = 0
  expect(flows.length > 0, 'no TCP between pods was seen at all')
  for (const { source, destination, bytes: payload } of flows) {
    const name = `${source.ip}:${source.port} → ${destination.ip}:${destination.port}`
    expect(source.port === HBONE || destination.port === HBONE, `TCP beside the tunnel: ${name}`)
    for (const secret of secrets)
      expect(!payload.includes(secret), `${name} carries '${secret}' in the clear`)
    bytes += payload.length
    if (source.port !== HBONE || payload.length === 0) continue
    const version = tlsVersionChosen(payload)
    expect(version === TLS_1_3 || version === undefined, `${name}: TLS version 0x${version?.toString(16)}`)
    if (version === TLS_1_3) handshakes++
  }
  expect(handshakes > 0, 'no TLS handshake was seen')
  return `${flows.length} flows, ${bytes} bytes between pods, all on 15008; ${handshakes} TLS 1.3 handshakes; none of ${secrets.length} secrets in them`
}
