/**
 * Names that discovery can be asked for by, beside resources' own: of what is behind an address, or behind a port of a
 * node. No resource has a blank in its name.
 */
import { isIP } from 'node:net'

/** Whoever has the address: pod, service, or an endpoint that is neither. */
export function addressName(network: string, ip: string): string {
  return `${network}/${ip}`
}

/** The service that has the port on every node. */
export function nodePortName(port: number): string {
  return `port ${port}`
}

/** The pods that a port of their node leads to. */
export function hostPortName(node: string, port: number): string {
  return `port ${port} of ${node}`
}

export type AskedName =
  | { readonly kind: 'address'; readonly ip: string }
  | { readonly kind: 'node-port'; readonly port: number }
  | { readonly kind: 'host-port'; readonly node: string; readonly port: number }

/** What a name asks for; undefined when it is a resource's own. */
export function parseAskedName(network: string, name: string): AskedName | undefined {
  const prefix = addressName(network, '')
  const ip = name.startsWith(prefix) ? name.slice(prefix.length) : ''
  if (isIP(ip) !== 0) return { kind: 'address', ip }
  const [, port, node] = /^port (\d+)(?: of (.+))?$/.exec(name) ?? []
  if (port === undefined) return undefined
  return node === undefined
    ? { kind: 'node-port', port: Number(port) }
    : { kind: 'host-port', node, port: Number(port) }
}
