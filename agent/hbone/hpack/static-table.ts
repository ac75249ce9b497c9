/** The 61 entries that both ends know from the start (RFC 7541 Appendix A), by index and by name and value. */

/** Name and value of index 1 and on. Entries without a value lend only their name. */
const ENTRIES: readonly (readonly [name: string, value: string])[] = [
  [':authority', ''],
  [':method', 'GET'],
  [':method', 'POST'],
  [':path', '/'],
  [':path', '/index.html'],
  [':scheme', 'http'],
  [':scheme', 'https'],
  [':status', '200'],
  [':status', '204'],
  [':status', '206'],
  [':status', '304'],
  [':status', '400'],
  [':status', '404'],
  [':status', '500'],
  ['accept-charset', ''],
  ['accept-encoding', 'gzip, deflate'],
  ['accept-language', ''],
  ['accept-ranges', ''],
  ['accept', ''],
  ['access-control-allow-origin', ''],
  ['age', ''],
  ['allow', ''],
  ['authorization', ''],
  ['cache-control', ''],
  ['content-disposition', ''],
  ['content-encoding', ''],
  ['content-language', ''],
  ['content-length', ''],
  ['content-location', ''],
  ['content-range', ''],
  ['content-type', ''],
  ['cookie', ''],
  ['date', ''],
  ['etag', ''],
  ['expect', ''],
  ['expires', ''],
  ['from', ''],
  ['host', ''],
  ['if-match', ''],
  ['if-modified-since', ''],
  ['if-none-match', ''],
  ['if-range', ''],
  ['if-unmodified-since', ''],
  ['last-modified', ''],
  ['link', ''],
  ['location', ''],
  ['max-forwards', ''],
  ['proxy-authenticate', ''],
  ['proxy-authorization', ''],
  ['range', ''],
  ['referer', ''],
  ['refresh', ''],
  ['retry-after', ''],
  ['server', ''],
  ['set-cookie', ''],
  ['strict-transport-security', ''],
  ['transfer-encoding', ''],
  ['user-agent', ''],
  ['vary', ''],
  ['via', ''],
  ['www-authenticate', ''],
]

/** How many entries there are; the dynamic table's newest entry has the index after the last of them. */
export const STATIC_ENTRIES = ENTRIES.length

/** By index, 1 to `STATIC_ENTRIES`; index 0 stands for nothing. */
export const STATIC_NAMES: readonly string[] = ['', ...ENTRIES.map(([name]) => name)]
export const STATIC_VALUES: readonly string[] = ['', ...ENTRIES.map(([, value]) => value)]

/** Where a name stands in the static table. */
export interface StaticName {
  /** Index of the first entry with the name. */
  readonly index: number
  /** Index of the entry with the name and a value. */
  readonly values: ReadonlyMap<string, number>
}

export const STATIC_BY_NAME: ReadonlyMap<string, StaticName> = byName()

function byName(): Map<string, StaticName> {
  const names = new Map<string, { index: number; values: Map<string, number> }>()
  for (const [at, [name, value]] of ENTRIES.entries()) {
    let known = names.get(name)
    if (!known) names.set(name, (known = { index: at + 1, values: new Map() }))
    known.values.set(value, at + 1)
  }
  return names
}
