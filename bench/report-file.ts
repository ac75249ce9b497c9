/** Reading a run from its file. The file may be anybody's: what does not hold is named, and nothing is shown of it. */
import { readFile } from 'node:fs/promises'
import { CulvertError } from '../lib/errors.ts'
import { ARM_NAMES, SCHEMA, type BenchRun } from './model.ts'

type Fields = Readonly<Record<string, unknown>>

/** The run in a file that `--json` wrote. Throws `INPUT` when there is none, or what is there is no such run. */
export async function readRun(file: string): Promise<BenchRun> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (err) {
    throw new CulvertError('INPUT', `${file} cannot be read`, { cause: err })
  }
  return parseRun(text, file)
}

/** As `readRun`, from text; `name` is for messages. */
export function parseRun(text: string, name: string): BenchRun {
  const wrong = (what: string, cause?: unknown) =>
    new CulvertError('INPUT', `${name} is not a run of the bench: ${what}`, { cause })
  let run: unknown
  try {
    run = JSON.parse(text)
  } catch (err) {
    throw wrong('not JSON', err)
  }
  if (!isFields(run)) throw wrong('not an object')
  if (run['schema'] !== SCHEMA) throw wrong(`its schema is ${String(run['schema'])}, not ${SCHEMA}`)
  for (const field of ['startedAt', 'finishedAt', 'commit', 'command'])
    if (!isText(run[field])) throw wrong(`${field} is not a text`)
  const { machine } = run
  if (!isFields(machine)) throw wrong('machine is not an object')
  for (const field of ['cpu', 'kernel', 'node', 'os'])
    if (!isText(machine[field])) throw wrong(`machine.${field} is not a text`)
  for (const field of ['cores', 'memoryBytes', 'loadAtStart'])
    if (!isNumber(machine[field])) throw wrong(`machine.${field} is not a number`)
  if (!isNumber(run['rounds'])) throw wrong('rounds is not a number')
  for (const [list, problem] of Object.entries(LISTS)) {
    const items = run[list]
    if (items === undefined && OPTIONAL.has(list)) continue
    if (!Array.isArray(items)) throw wrong(`${list} is not a list`)
    items.forEach((item: unknown, at) => {
      const found = isFields(item) ? problem(item) : 'is not an object'
      if (found !== undefined) throw wrong(`${list}[${at}] ${found}`)
    })
  }
  return run as unknown as BenchRun
}

const OPTIONAL: ReadonlySet<string> = new Set(['gaps', 'micro', 'series'])

/** What is wrong with an item of each list, if something is. */
const LISTS: Readonly<Record<string, (item: Fields) => string | undefined>> = {
  arms: item => {
    if (!isArm(item['name'])) return 'has no name of an arm'
    const isListed = Array.isArray(item['commands']) && item['commands'].every(isText)
    return isListed && isText(item['config']) ? undefined : 'has no commands or no config'
  },
  metrics: item => {
    const missing = ['id', 'title', 'unit', 'command', 'about'].find(field => !isText(item[field]))
    if (missing !== undefined) return `has no ${missing}`
    return item['better'] === 'higher' || item['better'] === 'lower'
      ? undefined
      : "says neither 'higher' nor 'lower' is better"
  },
  samples: item => {
    if (!isArm(item['arm'])) return 'has no name of an arm'
    if (!isText(item['metric']) || !isText(item['at'])) return 'has no metric or no time'
    return isNumber(item['value']) && isNumber(item['round']) ? undefined : 'has no value or no round'
  },
  gaps: item => {
    if (!isArm(item['arm'])) return 'has no name of an arm'
    return isText(item['metric']) && isText(item['why']) && isNumber(item['round'])
      ? undefined
      : 'has no metric, no round or no reason'
  },
  micro: item => {
    const { samples } = item
    if (!isText(item['title']) || !isText(item['about'])) return 'has no title or no meaning'
    return isNumber(item['opsPerSecond']) && Array.isArray(samples) && samples.every(isNumber)
      ? undefined
      : 'has no figures'
  },
  series: item => {
    const missing = ['title', 'xLabel', 'yLabel', 'unit', 'about'].find(field => !isText(item[field]))
    if (missing !== undefined) return `has no ${missing}`
    const { points } = item
    const isPoint = (point: unknown) => isFields(point) && isNumber(point['x']) && isNumber(point['y'])
    return Array.isArray(points) && points.every(isPoint) ? undefined : 'has no points'
  },
}

function isArm(value: unknown): boolean {
  return ARM_NAMES.some(name => name === value)
}

function isText(value: unknown): value is string {
  return typeof value === 'string'
}

function isNumber(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value)
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
