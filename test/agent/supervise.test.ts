import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'

const SCRIPT = fileURLToPath(new URL('../../agent/supervise.sh', import.meta.url))
/** Those that images have under the name of sh, of them what is here; ours has dash. */
const SHELLS = [
  ['dash', ['/usr/bin/dash']],
  ['bash', ['/usr/bin/bash', '--posix']],
  ['busybox', ['/usr/bin/busybox', 'sh']],
] as const
const installed = SHELLS.filter(([, [path]]) => existsSync(path))
t.not(installed.length, 0, 'a shell')

/** Tells that it is there, and then does as its name says. */
const PRELUDE = `const { pid } = process
const serve = () => setInterval(() => {}, 1000)
console.log('agent ' + pid)
`

class Supervised {
  readonly child: ChildProcess
  readonly ended: Promise<readonly [code: number | null, signal: string | null]>
  /** What the agent and its supervisor have said. */
  readonly said: string[] = []
  #wake = Promise.withResolvers<void>()
  #isOver = false

  constructor(t: Test, shell: readonly string[], agent: string, youth = '10') {
    const dir = t.testdir()
    writeFileSync(
      join(dir, 'supervise.sh'),
      readFileSync(SCRIPT, 'utf8').replace('YOUNG=10\n', `YOUNG=${youth}\n`),
    )
    writeFileSync(join(dir, 'main.ts'), PRELUDE + agent)
    const [program, ...args] = [...shell, join(dir, 'supervise.sh')]
    this.child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: [dirname(process.execPath), '/usr/bin', '/bin'].join(delimiter) },
      detached: true,
    })
    t.teardown(() => {
      try {
        process.kill(-this.child.pid!, 'SIGKILL')
      } catch {
        // Nothing of it is left.
      }
    })
    this.ended = new Promise(resolve => this.child.once('exit', (code, signal) => resolve([code, signal])))
    this.child.once('close', () => {
      this.#isOver = true
      this.#wake.resolve()
    })
    for (const stream of [this.child.stdout!, this.child.stderr!])
      createInterface(stream).on('line', line => {
        this.said.push(line)
        this.#wake.resolve()
      })
  }

  /** Resolves with the line when so many of this kind were said; rejects when all is over without it. */
  async line(kind: RegExp, count = 1): Promise<string> {
    for (;;) {
      const found = this.said.filter(line => kind.test(line))
      if (found.length >= count) return found[count - 1]!
      if (this.#isOver) throw new Error(`ended without ${kind}: ${this.said.join(' | ')}`)
      this.#wake = Promise.withResolvers()
      await this.#wake.promise
    }
  }

  /** The process number of the n-th agent, once it is there. */
  async agent(count = 1): Promise<number> {
    return Number((await this.line(/^agent \d/, count)).slice('agent '.length))
  }
}

// Most of it is waiting.
t.jobs = installed.length
for (const [name, shell] of installed)
  void t.test(name, { buffered: true }, async t => {
    await t.test('an agent that is killed is started again, at once and then ever later', async t => {
      const it = new Supervised(t, shell, 'serve()')
      for (let count = 1; count <= 4; count++) {
        process.kill(await it.agent(count), 'SIGKILL')
        await it.line(/has ended with status 137/, count)
      }
      t.match(
        it.said.filter(line => line.startsWith('culvert:')),
        ['0 s', '0.2 s', '0.5 s', '1 s'].map(
          pause => new RegExp(`started again in ${pause.replace('.', '\\.')}$`),
        ),
      )
      const last = await it.agent(5)
      it.child.kill('SIGTERM')
      await it.ended
      t.throws(() => process.kill(last, 0), { code: 'ESRCH' }, 'and none when it was told to end')
    })

    await t.test('an agent that has lived for a while is started at once again', async t => {
      const it = new Supervised(t, shell, `setTimeout(() => console.log('grown'), 1500); serve()`, '0.5')
      for (let count = 1; count <= 3; count++) {
        await it.line(/^grown/, count)
        process.kill(await it.agent(count), 'SIGKILL')
        t.match(await it.line(/^culvert:/, count), /started again in 0 s$/)
      }
    })

    await t.test('it passes the word on, waits, and ends as the agent does', async t => {
      const it = new Supervised(
        t,
        shell,
        `process.on('SIGTERM', () => { console.log('draining'); setTimeout(() => process.exit(7), 300) })
serve(); console.log('listening')`,
      )
      await it.line(/^listening/)
      it.child.kill('SIGTERM')
      await it.line(/draining/)
      it.child.kill('SIGTERM')
      t.strictSame(await it.ended, [7, null])
      t.notOk(it.said.some(line => line.startsWith('culvert:')))
    })

    for (const [status, why] of [
      [2, 'wrong settings'],
      [0, 'an orderly end'],
    ] as const)
      await t.test(`${why} cannot be helped by starting again`, async t => {
        const it = new Supervised(t, shell, `process.exit(${status})`)
        t.strictSame(await it.ended, [status, null])
        t.equal(it.said.filter(line => line.startsWith('agent')).length, 1)
      })

    await t.test(
      'an agent that fails is started again, and waiting for that ends when it is told to',
      async t => {
        const it = new Supervised(t, shell, 'process.exit(70)')
        await it.line(/has ended with status 70; it is started again in 1 s/)
        it.child.kill('SIGTERM')
        t.strictSame(await it.ended, [70, null])
      },
    )

    await t.test('what the agent has started lives on when it is killed', async t => {
      const it = new Supervised(
        t,
        shell,
        `import { spawn } from 'node:child_process'
const holder = spawn('sleep', ['1000'], { detached: true, stdio: 'ignore' })
console.log('holder ' + holder.pid); serve()`,
      )
      const holder = Number((await it.line(/^holder/)).slice('holder '.length))
      t.teardown(() => process.kill(holder, 'SIGKILL'))
      process.kill(await it.agent(), 'SIGKILL')
      await it.agent(2)
      t.doesNotThrow(() => process.kill(holder, 0))
      process.kill(Number((await it.line(/^holder/, 2)).slice('holder '.length)), 'SIGKILL')
    })
  })
