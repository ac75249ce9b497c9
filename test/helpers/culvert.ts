/** The `culvert` command as a user runs it. */
import { fileURLToPath } from 'node:url'
import { run, type Ran } from '../../lab/run.ts'

export const CULVERT: string = fileURLToPath(new URL('../../cli/culvert', import.meta.url))

export interface Said extends Omit<Ran, 'stdout'> {
  readonly stdout: string
}

/** Runs the command to its end, without a terminal. */
export async function culvert(
  words: readonly string[],
  options: { input?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<Said> {
  const { CULVERT_LAB: _, ...env } = { ...process.env, ...options.env }
  const ran = await run([CULVERT, ...words], {
    env,
    ...(options.input === undefined ? {} : { input: options.input }),
  })
  return { ...ran, stdout: ran.stdout.toString() }
}
