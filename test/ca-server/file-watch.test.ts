import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { FileWatch } from '../../ca-server/file-watch.ts'
import { temporaryDirectory } from '../helpers/ca-server.ts'

interface Watched {
  directory: string
  watch: FileWatch
  /** What was loaded or failed, in order. */
  seen: string[]
  /** Ends when that many were seen. */
  until: (count: number) => Promise<void>
  follow: () => void
}

function watched(t: Test, names: string[], directory = temporaryDirectory(t)): Watched {
  const seen: string[] = []
  let tell = (): void => undefined
  const add = (text: string): void => {
    seen.push(text)
    tell()
  }
  const watch = new FileWatch({
    paths: names.map(name => join(directory, name)),
    load(texts) {
      const text = texts.join('+')
      if (text.includes('bad')) throw new Error(`cannot use ${text}`)
      add(text)
    },
    failed: err => add(`failed: ${(err as Error).message.split(',')[0]}`),
    pollMs: 20,
  })
  const controller = new AbortController()
  t.teardown(() => controller.abort())
  return {
    directory,
    watch,
    seen,
    follow: () => watch.follow(controller.signal),
    async until(count) {
      while (seen.length < count) await new Promise<void>(resolve => (tell = resolve))
    },
  }
}

await t.test('a file is loaded again when it is replaced, and not when it is only touched', async t => {
  const { directory, watch, seen, until, follow } = watched(t, ['a'])
  writeFileSync(join(directory, 'a'), 'one')
  await watch.loadNow()
  follow()
  writeFileSync(join(directory, 'a'), 'one')
  await watch.check()
  writeFileSync(join(directory, 'a.new'), 'two')
  renameSync(join(directory, 'a.new'), join(directory, 'a'))
  await until(2)
  t.strictSame(seen, ['one', 'two'])
})

await t.test('files that belong together are loaded together', async t => {
  const { directory, watch, seen, until, follow } = watched(t, ['a', 'b'])
  writeFileSync(join(directory, 'a'), 'a1')
  writeFileSync(join(directory, 'b'), 'b1')
  await watch.loadNow()
  follow()
  writeFileSync(join(directory, 'b'), 'b2')
  await until(2)
  t.strictSame(seen, ['a1+b1', 'a1+b2'])
})

await t.test('contents that cannot be used are told, and the next good ones taken', async t => {
  const { directory, watch, seen, until, follow } = watched(t, ['a'])
  writeFileSync(join(directory, 'a'), 'bad')
  await t.rejects(watch.loadNow(), { message: 'cannot use bad' })
  follow()
  writeFileSync(join(directory, 'a'), 'also bad')
  await until(1)
  rmSync(join(directory, 'a'))
  await until(2)
  writeFileSync(join(directory, 'a'), 'good')
  await until(3)
  t.strictSame(seen, ['failed: cannot use also bad', 'failed: ENOENT: no such file or directory', 'good'])
})

await t.test('a mounted volume that swaps its directory is followed', async t => {
  const { directory, watch, seen, until, follow } = watched(t, ['a'])
  for (const version of ['1', '2']) {
    mkdirSync(join(directory, `..${version}`))
    writeFileSync(join(directory, `..${version}`, 'a'), version)
  }
  symlinkSync('..1', join(directory, '..data'))
  symlinkSync(join('..data', 'a'), join(directory, 'a'))
  await watch.loadNow()
  follow()
  symlinkSync('..2', join(directory, '..next'))
  renameSync(join(directory, '..next'), join(directory, '..data'))
  await until(2)
  t.strictSame(seen, ['1', '2'])
})

await t.test('a directory that comes later is found by looking', async t => {
  const directory = join(temporaryDirectory(t), 'later')
  const { watch, seen, until, follow } = watched(t, ['a'], directory)
  await t.rejects(watch.loadNow(), { code: 'ENOENT' })
  follow()
  mkdirSync(directory)
  writeFileSync(join(directory, 'a'), 'here')
  await until(1)
  t.strictSame(seen, ['here'])
})
