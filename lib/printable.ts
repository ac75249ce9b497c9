/**
 * Text of somebody else's, fit for a log line and a terminal: at most `longest` characters, those that do not print
 * (control characters, what reorders text, halves of characters) replaced.
 */
export function printable(text: string, longest = 128): string {
  const short = text.length > longest ? `${text.slice(0, longest)}…` : text
  return short.replaceAll(/\p{C}/gu, '?')
}
