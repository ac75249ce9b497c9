/**
 * The documents of a YAML file. A file of a whole cluster is written again for every change of one object: what was in it
 * the last time is not parsed again.
 */
import { parseAllDocuments } from 'yaml'
import { errorText } from '../errors.ts'

const OPTIONS = { merge: true, prettyErrors: false, logLevel: 'silent' } as const
/** A line with a separator alone. No document has one in it, not even in a block of text (YAML 1.2.2, section 9.1.2). */
const SEPARATOR = /^---[ \t]*(?:\n|$)/m
/** Whatever else stands between documents, or at a separator: directives, ends, a document on the same line. */
const OTHER_MARKS = /^(?:%|\.\.\.|---[ \t]*[^ \t\n])|\r/m
const NOTHING = /^(?:[ \t]*(?:#.*)?(?:\n|$))*$/

export class DocumentReader {
  #known = new Map<string, unknown>()

  /**
   * Every document's value, null for one that is not YAML or empty. What is not YAML is added to `problems`, with the
   * document's number, line and column. Values may be those of the last time: they are not to be changed.
   */
  read(text: string, problems: string[]): unknown[] {
    return this.#readPieces(text) ?? parseWhole(text, problems)
  }

  /** Undefined when the text cannot be taken apart, or something in it is wrong. */
  #readPieces(text: string): unknown[] | undefined {
    if (OTHER_MARKS.test(text)) return undefined
    const pieces = text.split(SEPARATOR)
    if (pieces.length > 1 && NOTHING.test(pieces[0]!)) pieces.shift()
    const known = new Map<string, unknown>()
    for (const piece of pieces) {
      if (known.has(piece)) continue
      if (this.#known.has(piece)) known.set(piece, this.#known.get(piece))
      else {
        const problems: string[] = []
        const documents = parseWhole(piece, problems)
        if (documents.length > 1 || problems.length > 0) return undefined
        known.set(piece, documents[0] ?? null)
      }
    }
    this.#known = known
    return pieces.map(piece => known.get(piece))
  }
}

function parseWhole(text: string, problems: string[]): unknown[] {
  return [...parseAllDocuments(text, OPTIONS)].map((document, at) => {
    for (const error of document.errors) {
      const before = text.slice(0, error.pos[0]).split('\n')
      const where = `line ${before.length}, column ${before.at(-1)!.length + 1}`
      problems.push(`document ${at + 1}: not YAML at ${where}: ${lowerFirst(error.message)}`)
    }
    if (document.errors.length > 0) return null
    try {
      return document.toJS() as unknown
    } catch (err) {
      problems.push(`document ${at + 1}: not YAML: ${lowerFirst(errorText(err))}`)
      return null
    }
  })
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1)
}
