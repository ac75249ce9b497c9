/** Captures and findings in files. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CulvertError } from '../../lib/errors.ts'
import type { Capture } from './captures.ts'
import { caseFromJson, caseToJson, type Case } from './cases.ts'
import type { Finding } from './fuzz.ts'

const CAPTURE_FILE = /^(.+)\.(client|server)\.bin$/
const NOTHING = Buffer.alloc(0)

/** The captures of a directory in the order of their names; the side that there is none of is empty. Throws `INPUT`. */
export function readCorpus(dir: string): Capture[] {
  let files: string[]
  try {
    files = readdirSync(dir).sort()
  } catch (cause) {
    throw new CulvertError('INPUT', `the captures in ${dir} cannot be read`, { cause })
  }
  const captures = new Map<string, { client: Buffer; server: Buffer }>()
  for (const file of files) {
    const [, name, side] = CAPTURE_FILE.exec(file) ?? []
    if (name === undefined) continue
    const sides = captures.get(name) ?? { client: NOTHING, server: NOTHING }
    sides[side as 'client' | 'server'] = readFileSync(join(dir, file))
    captures.set(name, sides)
  }
  return [...captures].map(([name, sides]) => ({ name, ...sides }))
}

/** Writes a finding with its cases; gives the file's name. */
export function writeFinding({ what, cases }: Finding, seed: number, number: number): string {
  const dir = join(tmpdir(), 'culvert-fuzz')
  mkdirSync(dir, { recursive: true })
  const file = join(dir, `${seed}-${number}.json`)
  writeFileSync(file, `${JSON.stringify({ what, seed, cases: cases.map(caseToJson) }, undefined, 1)}\n`)
  return file
}

/** The cases of such a file. Throws `INPUT`. */
export function readFinding(file: string): { seed: number; cases: Case[] } {
  try {
    const { seed, cases } = JSON.parse(readFileSync(file, 'utf8')) as { seed: unknown; cases: unknown }
    if (typeof seed !== 'number' || !Array.isArray(cases)) throw new TypeError('not a finding')
    return { seed, cases: cases.map(caseFromJson) }
  } catch (cause) {
    throw new CulvertError('INPUT', `${file} holds no cases`, { cause })
  }
}
