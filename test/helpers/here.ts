/** The `culvert` command without a process of its own: what it writes is caught. */
import type { Test } from 'tap'
import { runCulvert } from '../../cli/program.ts'

export interface Heard {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** One at a time: what it catches is this process's own output. */
export async function here(t: Test, words: readonly string[]): Promise<Heard> {
  const said = { stdout: '', stderr: '' }
  const restore = (['stdout', 'stderr'] as const).map(
    name =>
      t.intercept(process[name], 'write', {
        value: (text: string) => {
          said[name] += text
          return true
        },
      }).restore,
  )
  const before = process.exitCode
  try {
    return { code: await runCulvert(words), ...said }
  } finally {
    process.exitCode = before
    for (const undo of restore) undo()
  }
}
