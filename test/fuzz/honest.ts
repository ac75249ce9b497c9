/** The honest client as the fuzzer holds it. */
import type { ChildProcess } from 'node:child_process'
import { createInterface, type Interface } from 'node:readline'
import { programArgv } from '../../lab/supervisor/context.ts'
import { CulvertError } from '../../lib/errors.ts'
import type { HonestReport } from './honest-client.ts'
import type { Scope } from './scope.ts'
import { startProgram, type Target } from './target.ts'

const ANSWER_MS = 15_000

export class Honest {
  readonly #child: ChildProcess
  readonly #lines: Interface

  private constructor(child: ChildProcess) {
    this.#child = child
    this.#lines = createInterface({ input: child.stdout! })
  }

  /** Round trips from the client's pod to the application, through the tunnel, until the scope ends. */
  static async start(scope: Scope, { client, server }: Target): Promise<Honest> {
    const argv = [...programArgv('test/fuzz/honest-client.ts'), server.ip, '7000']
    return new Honest(await startProgram(scope, client, argv, line => line === 'started'))
  }

  /** What has happened since the last report. */
  report(): Promise<HonestReport> {
    return new Promise((resolve, reject) => {
      const late = setTimeout(
        () => reject(new CulvertError('TIMEOUT', 'the honest client does not answer')),
        ANSWER_MS,
      )
      this.#lines.once('line', line => {
        clearTimeout(late)
        resolve(JSON.parse(line) as HonestReport)
      })
      this.#child.stdin!.write('report\n')
    })
  }
}
