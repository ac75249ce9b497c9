/**
 * Small tests in one process: one of its own takes longer to load than what most of them have to do. Which ones they are,
 * `.taprc` says: tap does not start those that it excludes, and what is named on its command line runs alone as ever.
 */
import { globSync, readFileSync } from 'node:fs'
import { dirname, matchesGlob, relative, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { parse } from 'yaml'
import { errorText } from '../../lib/errors.ts'

const ROOT = resolve(import.meta.dirname, '../..')

/** The tests that tap leaves to those that run them together: paths from the project's root, by directory of the latter. */
export function testsTogether(): Map<string, string[]> {
  const { exclude } = parse(readFileSync(resolve(ROOT, '.taprc'), 'utf8')) as { exclude: string[] }
  const all = globSync('test/**/*.test.ts', { cwd: ROOT }).sort()
  const groups = new Map<string, string[]>()
  for (const test of all) if (test.endsWith('/together.test.ts')) groups.set(dirname(test), [])
  for (const test of all) {
    if (!exclude.some(pattern => matchesGlob(test, pattern))) continue
    let dir = dirname(test)
    while (!groups.has(dir)) {
      if (dir === '.') throw new Error(`${test} is excluded in .taprc, and nothing else runs it`)
      dir = dirname(dir)
    }
    groups.get(dir)!.push(test)
  }
  return groups
}

/** Runs those of a directory, one after the other. One that cannot be loaded is a failure, and the others still run. */
export async function together(dir: string): Promise<void> {
  for (const test of testsTogether().get(relative(ROOT, dir)) ?? []) {
    t.comment(test)
    try {
      await import(pathToFileURL(resolve(ROOT, test)).href)
    } catch (err) {
      t.fail(`${test}: ${errorText(err)}`)
    }
  }
}
