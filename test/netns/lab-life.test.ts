import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { downLab, openLab, startLab, type Lab } from '../../lab/lab.ts'
import { labPaths } from '../../lab/names.ts'
import { listNetns } from '../../lab/net/namespaces.ts'
import { isAlive, processRef, signalProcess, waitGone, type ProcessRef } from '../../lab/processes.ts'
import { readState } from '../../lab/state.ts'
import { tinyLab } from '../helpers/lab-file.ts'

const file = join(
  t.testdir({ 'lab.yaml': tinyLab(), 'bad.yaml': 'kind: Pod\n', 'clash.yaml': clash() }),
  'lab.yaml',
)
const dir = join(file, '..')
let labs = 0
const nextName = () => `l${process.pid}_${labs++}`

const nothingLeft = (name: string) => listNetns(name).length === 0 && !existsSync(labPaths(name).run)

/** Everything of a lab that runs: its supervisor, ca-server and containers. */
function processesOf(lab: Lab): ProcessRef[] {
  const state = readState(lab.paths)!
  return [state.supervisor, ...Object.values(state.processes)]
}

/** A file that is right as a file, and of which a lab cannot be built: two services want one address. */
function clash(): string {
  const service = (name: string) =>
    `{ apiVersion: v1, kind: Service, metadata: { name: ${name} }, spec: { clusterIP: 10.97.9.9, ports: [{ port: 80 }] } }`
  return [tinyLab(), service('a'), service('b')].join('\n---\n')
}

await t.test('a lab that is taken down leaves nothing', async t => {
  const name = nextName()
  const lab = await startLab({ name, file })
  const processes = processesOf(lab)
  t.ok(processes.length >= 3)
  await lab.down()
  t.ok(nothingLeft(name))
  t.strictSame(processes.filter(isAlive), [])
  t.equal(await downLab(name), undefined, 'taking it down again is no error')
  t.throws(() => openLab(name), {
    code: 'LAB',
    message: `lab '${name}' is not up`,
    hint: /culvert lab up|these are up/,
  })
})

await t.test('a killed supervisor: down cleans', async t => {
  const name = nextName()
  const lab = await startLab({ name, file })
  const processes = processesOf(lab)
  signalProcess(lab.supervisor, 'SIGKILL')
  await waitGone(lab.supervisor, 5000)
  t.ok(processes.some(isAlive), 'the rest outlives it')
  t.throws(() => openLab(name), { code: 'LAB', hint: /lab down/ })
  t.match(await downLab(name), { namespaces: 5 })
  t.ok(nothingLeft(name))
  t.strictSame(processes.filter(isAlive), [])
})

await t.test('a killed supervisor: the next up cleans and works', async t => {
  const name = nextName()
  const first = await startLab({ name, file })
  const processes = processesOf(first)
  signalProcess(first.supervisor, 'SIGKILL')
  await waitGone(first.supervisor, 5000)
  const steps: string[] = []
  const second = await startLab({ name, file, progress: step => steps.push(step) })
  t.teardown(() => second.down())
  t.match(steps[0], /cleaning up/)
  t.strictSame(processes.filter(isAlive), [])
  t.equal((await second.exec('one', ['true'])).code, 0)
})

await t.test('namespaces of a crash are cleaned even when the run directory is gone', async t => {
  const name = nextName()
  const lab = await startLab({ name, file })
  const processes = processesOf(lab)
  signalProcess(lab.supervisor, 'SIGKILL')
  await waitGone(lab.supervisor, 5000)
  const { rmSync } = await import('node:fs')
  rmSync(lab.paths.run, { recursive: true })
  t.match(await downLab(name), { namespaces: 5 })
  t.ok(nothingLeft(name))
  t.strictSame(processes.filter(isAlive), [])
})

for (const [how, isTied] of [
  ['ends with the process that started it, however that ends', true],
  ['outlives it when it is detached', false],
] as const)
  await t.test(`a lab ${how}`, async t => {
    const name = nextName()
    const program = fileURLToPath(new URL('../helpers/start-lab.ts', import.meta.url))
    const child = spawn(process.execPath, [program, JSON.stringify({ name, file, isTied })], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    t.teardown(() => downLab(name))
    await once(createInterface({ input: child.stdout }), 'line')
    const lab = openLab(name)
    child.kill('SIGKILL')
    await once(child, 'exit')
    if (isTied) {
      t.ok(await waitGone(lab.supervisor, 5000))
      t.ok(nothingLeft(name))
    } else {
      t.equal((await lab.exec('one', ['true'])).code, 0)
      t.equal(await downLab(name), 'down')
      t.ok(nothingLeft(name))
    }
  })

await t.test('a name is had by one lab at a time; labs of two names live side by side', async t => {
  const [name, other] = [nextName(), nextName()]
  const lab = await startLab({ name, file })
  t.teardown(() => lab.down())
  await t.rejects(startLab({ name, file }), {
    code: 'LAB',
    message: `lab '${name}' is already up`,
    hint: `look at it with 'culvert lab status --name ${name}', end it with 'culvert lab down --name ${name}'`,
  })
  t.equal((await lab.exec('one', ['true'])).code, 0, 'the one that was there is not harmed')
  const beside = await startLab({ name: other, file })
  t.strictSame((await beside.pod('one')).ips, (await lab.pod('one')).ips)
  await beside.down()
  t.ok(nothingLeft(other))
  t.ok(processRef(lab.supervisor.pid))
})

await t.test('a lab that cannot be built says why and leaves nothing', async t => {
  const name = nextName()
  await t.rejects(startLab({ name, file: join(dir, 'bad.yaml') }), {
    code: 'INPUT',
    message: /bad\.yaml: document 1 \(Pod\): apiVersion is required/,
  })
  await t.rejects(startLab({ name, file: join(dir, 'none.yaml') }), { code: 'INPUT', message: /none\.yaml/ })
  await t.rejects(startLab({ name, file: join(dir, 'clash.yaml') }), {
    code: 'LAB',
    message: /10\.97\.9\.9 is already in use/,
  })
  await t.rejects(startLab({ name: 'a-b', file }), { code: 'LAB', message: /'a-b' cannot be a lab's name/ })
  t.ok(nothingLeft(name))
})

await t.test('starting can be given up, and then nothing is left', async t => {
  const name = nextName()
  const giveUp = new AbortController()
  await t.rejects(
    startLab({
      name,
      file,
      signal: giveUp.signal,
      progress: step => step === 'ca-server and agents' && giveUp.abort(),
    }),
    { code: 'LAB', message: 'interrupted' },
  )
  t.ok(nothingLeft(name))
})
