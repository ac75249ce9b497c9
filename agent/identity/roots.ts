/**
 * Sets of root certificates. A root counts once however often and wherever it is named, and a set always has the same
 * text, so that "did the roots change?" is a comparison of strings.
 */
import { X509Certificate } from 'node:crypto'

const MOST_ROOTS = 64
const PEM = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g

export interface ParsedRoots {
  readonly roots: X509Certificate[]
  /** One sentence for each thing that was left out. */
  readonly problems: string[]
}

/** Reads PEM texts, each with any number of certificates. What cannot be read is named and left out. */
export function parseRoots(texts: readonly string[]): ParsedRoots {
  const roots: X509Certificate[] = []
  const problems: string[] = []
  for (const [at, text] of texts.entries()) {
    const blocks = text.match(PEM) ?? []
    if (blocks.length === 0) problems.push(`root ${at + 1} holds no certificate`)
    for (const block of blocks) {
      if (roots.length >= MOST_ROOTS) {
        problems.push(`more than ${MOST_ROOTS} roots; the rest is left out`)
        return { roots, problems }
      }
      try {
        roots.push(new X509Certificate(block))
      } catch {
        problems.push(`root ${at + 1} cannot be read as a certificate`)
      }
    }
  }
  return { roots, problems }
}

/** The PEM text of all sets together, in an order of its own. */
export function rootsText(...sets: readonly (readonly X509Certificate[])[]): string {
  const byFingerprint = new Map<string, string>()
  for (const root of sets.flat()) byFingerprint.set(root.fingerprint256, root.toString())
  return [...byFingerprint]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, text]) => text)
    .join('')
}
