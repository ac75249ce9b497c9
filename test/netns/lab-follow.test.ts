import { renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { LabStatus } from '../../lab/status.ts'
import { readIfThere } from '../../lab/files.ts'
import { sleeper, tinyLab } from '../helpers/lab-file.ts'
import { labFor } from '../helpers/lab.ts'

const file = join(t.testdir({ 'lab.yaml': tinyLab(['one', 'two']) }), 'lab.yaml')
const lab = await labFor(t, { file })

/** As editors do it: another file takes the name. */
function replace(text: string): void {
  writeFileSync(`${file}.new`, text)
  renameSync(`${file}.new`, file)
}

async function until(isSo: (status: LabStatus) => boolean): Promise<LabStatus> {
  for (const deadline = Date.now() + 10_000; ; await sleep(20)) {
    const status = await lab.status()
    if (isSo(status)) return status
    if (Date.now() > deadline) throw new Error(`it did not become so: ${JSON.stringify(status.pods)}`)
  }
}
const names = (status: LabStatus) =>
  status.pods
    .map(({ name }) => name)
    .sort()
    .join(' ')

await t.test('pods of the file come, go and are annotated as it changes', async t => {
  const { uid } = await lab.pod('one')
  replace(`${tinyLab(['two'])}\n---\n${sleeper('one', 'changed')}\n---\n${sleeper('three')}`)
  await until(status => names(status) === 'one three two' && status.pods.every(({ ready }) => ready))
  t.equal((await lab.pod('one')).uid, uid, 'a pod of another annotation is the same pod')
  t.match(readIfThere(lab.paths.cluster), /example\.com\/a: changed/)
  replace(tinyLab(['three']))
  await until(status => names(status) === 'three')
})

await t.test('a pod of another spec is another pod', async t => {
  const { uid } = await lab.pod('three')
  replace(tinyLab(['three']).replace('sleep, infinity', 'sleep, "1000000"'))
  await until(status => status.pods.some(pod => pod.name === 'three' && pod.uid !== uid && pod.ready))
  t.pass('it is')
})

await t.test('a broken file changes nothing and is told; the next good one is followed', async t => {
  replace('kind: Pod\n')
  const { fileProblem, warnings } = await until(status => status.fileProblem !== undefined)
  t.match(fileProblem, /lab\.yaml: document 1 \(Pod\): apiVersion is required/)
  t.match(warnings.at(-1), /not followed/)
  t.equal(names(await lab.status()), 'three')
  replace(tinyLab(['three', 'four']))
  t.equal((await until(status => names(status) === 'four three')).fileProblem, undefined)
})

await t.test('what a command has changed stays, unless the file says otherwise', async t => {
  await lab.addPods(sleeper('mine'))
  await lab.annotate('pod/four', { 'example.com/a': 'mine' })
  replace(tinyLab(['three', 'four', 'five']))
  await until(status => names(status) === 'five four mine three')
  t.match(readIfThere(lab.paths.cluster), /example\.com\/a: mine/)
})
