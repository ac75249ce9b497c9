import { appendFileSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { runOk } from '../../../lab/run.ts'
import { watchFile } from '../../../lab/supervisor/file-watch.ts'

function watched(t: Test) {
  const path = join(t.testdir({ 'lab.yaml': 'one' }), 'lab.yaml')
  const stop = new AbortController()
  t.teardown(() => stop.abort())
  const seen: string[] = []
  let wake = () => undefined as void
  watchFile(path, stop.signal, () => {
    seen.push(readFileSync(path, 'utf8'))
    wake()
  })
  const next = () => new Promise<void>(resolve => (wake = resolve))
  return { path, seen, next }
}

await t.test('a file that is replaced is heard of', async t => {
  const { path, seen, next } = watched(t)
  const heard = next()
  writeFileSync(`${path}.new`, 'two')
  renameSync(`${path}.new`, path)
  await heard
  t.strictSame(seen, ['two'])
})

await t.test('a file that is written in place is heard of when it is whole', async t => {
  const { path, seen, next } = watched(t)
  const heard = next()
  truncateSync(path)
  for (const piece of ['t', 'w', 'o']) {
    await sleep(20) // a slow editor
    appendFileSync(path, piece)
  }
  await heard
  t.strictSame(seen, ['two'])
})

await t.test('a file that is emptied or gone is waited for', async t => {
  const { path, seen, next } = watched(t)
  const heard = next()
  truncateSync(path)
  await sleep(300) // longer than any change takes to settle
  rmSync(path)
  await sleep(300)
  t.strictSame(seen, [])
  writeFileSync(path, 'back')
  await heard
  t.strictSame(seen, ['back'])
})

await t.test('a file is followed also where no inotify instance is to be had', async t => {
  const path = join(t.testdir({ 'lab.yaml': 'one' }), 'lab.yaml')
  const module = new URL('../../../lab/supervisor/file-watch.ts', import.meta.url).href
  const program = `
    const { readFileSync, watch, writeFileSync } = await import('node:fs')
    const { watchFile } = await import(${JSON.stringify(module)})
    try { watch('/') } catch (err) { console.log(err.code) }
    const stop = new AbortController()
    watchFile(process.argv[1], stop.signal, () => {
      console.log(readFileSync(process.argv[1], 'utf8'))
      stop.abort()
    })
    writeFileSync(process.argv[1], 'two')`
  const limited = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"'
  const node = [process.execPath, '--input-type=module', '-e', program, path]
  const ran = await runOk(['unshare', '--user', '--map-root-user', 'sh', '-c', limited, 'sh', ...node])
  t.equal(ran.stdout.toString(), 'EMFILE\ntwo\n')
})
