/**
 * Text that may stand in a page. Whatever is put into a `markup` template is escaped, unless it is itself such text: names
 * and configurations come from files of others and must not become part of the page's structure.
 */

export class Markup {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }

  toString(): string {
    return this.text
  }
}

export type Piece = Markup | string | number | undefined | readonly Piece[]

/** A template whose values are escaped; lists are set one behind the other, undefined is nothing. */
export function markup(parts: TemplateStringsArray, ...pieces: readonly Piece[]): Markup {
  return new Markup(parts.reduce((text, part, at) => text + textOf(pieces[at - 1]) + part))
}

/** Fit for content and for attributes in double quotes; what neither prints nor breaks a line is replaced. */
export function escape(text: string): string {
  return text
    .replaceAll(/(?![\n\t])\p{C}/gu, '?')
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;')
}

function textOf(piece: Piece): string {
  if (piece === undefined) return ''
  if (piece instanceof Markup) return piece.text
  return typeof piece === 'object' ? piece.map(textOf).join('') : escape(String(piece))
}
