/** Reads the text of a pod file. It is written by somebody else, so each field is checked and named when it is wrong. */
import { canonicalIp } from '../../lib/address.ts'
import { CulvertError, errorText } from '../../lib/errors.ts'
import type { LocalPod } from './source.ts'

type Fields = Readonly<Record<string, unknown>>

/** The pods of `{"pods": [LocalPod, …]}`. Throws `INPUT` that names the pod and the field. */
export function parsePods(text: string): LocalPod[] {
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch (cause) {
    throw new CulvertError('INPUT', 'not JSON', { cause })
  }
  const list = isFields(parsed) ? parsed['pods'] : undefined
  if (!Array.isArray(list)) throw new CulvertError('INPUT', 'pods is not a list')
  const seen = new Set<string>()
  return list.map((entry: unknown, at) => {
    const pod = parsePod(entry, `pods[${at}]`)
    if (seen.has(pod.uid)) throw new CulvertError('INPUT', `pods[${at}].uid: '${pod.uid}' is there twice`)
    seen.add(pod.uid)
    return pod
  })
}

function parsePod(entry: unknown, at: string): LocalPod {
  if (!isFields(entry)) throw new CulvertError('INPUT', `${at} is not an object`)
  const text = (field: string): string => {
    const value = entry[field]
    if (typeof value === 'string' && value !== '') return value
    throw new CulvertError('INPUT', `${at}.${field} is not a text`)
  }
  const netns = text('netns')
  if (!netns.startsWith('/')) throw new CulvertError('INPUT', `${at}.netns is not an absolute path`)
  const { terminating } = entry
  if (typeof terminating !== 'boolean')
    throw new CulvertError('INPUT', `${at}.terminating is not true or false`)
  return {
    uid: text('uid'),
    namespace: text('namespace'),
    name: text('name'),
    serviceAccount: text('serviceAccount'),
    ips: parseIps(entry['ips'], at),
    annotations: parseAnnotations(entry['annotations'], at),
    netns,
    terminating,
  }
}

/** IPv4 before IPv6, as the interface promises, whatever the file's order. */
function parseIps(value: unknown, at: string): string[] {
  if (!Array.isArray(value) || value.length === 0)
    throw new CulvertError('INPUT', `${at}.ips is not a list of addresses`)
  const ips = value.map((ip: unknown, index) => {
    try {
      return canonicalIp(String(ip))
    } catch (err) {
      throw new CulvertError('INPUT', `${at}.ips[${index}]: ${errorText(err)}`)
    }
  })
  return ips.toSorted((a, b) => Number(a.includes(':')) - Number(b.includes(':')))
}

function parseAnnotations(value: unknown, at: string): Record<string, string> {
  if (!isFields(value)) throw new CulvertError('INPUT', `${at}.annotations is not an object`)
  const annotations: Record<string, string> = {}
  for (const [name, text] of Object.entries(value)) {
    if (typeof text !== 'string') throw new CulvertError('INPUT', `${at}.annotations.${name} is not a text`)
    annotations[name] = text
  }
  return annotations
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
