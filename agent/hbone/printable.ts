/** A peer's text, fit for a log line: at most `longest` characters, those that do not print replaced. */
export function printable(text: string, longest = 128): string {
  return text.slice(0, longest).replaceAll(/[^\x20-\x7e]/g, '?')
}
