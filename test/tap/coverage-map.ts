/**
 * Which test files are counted for coverage. Counting makes what is hot many times slower: tests that start whole labs or
 * carry as much as goes are left out, those of the parts are not.
 */
import { readFileSync } from 'node:fs'

const STARTS_LAB = /\/lab\/lab\.ts'|\/helpers\/(?:lab|ztunnel|start-lab|rootless-lab)\.ts'/
const CARRIES_MUCH =
  /\/(?:bench-scale|data-plane|floods|foreign-\w+|fuzz|hostile(?:-\w+)?|run|scale|scale-cluster|soak)\.test\.ts$/

/** All files that a test loads (`[]`), or none. `test` is its path from the project's root, where tap runs. */
export default (test: string): [] | null =>
  CARRIES_MUCH.test(test) || STARTS_LAB.test(readFileSync(test, 'utf8')) ? null : []
