import t from 'tap'
import { Memory } from '../../../agent/redirect/memory.ts'

await t.test('what is kept is told apart by state and by wish', t => {
  const memory = new Memory()
  const changes = new Map([[4 as const, '*nat\n[0:0] -A X -j RETURN\nCOMMIT\n']])
  memory.keepChanges('state', 'wish', changes)
  t.equal(memory.changes('state', 'wish'), changes)
  t.equal(memory.changes('state', 'other'), undefined)
  t.equal(memory.changes('other', 'wish'), undefined)
  memory.keepClean('state', 'wish')
  t.ok(memory.isClean('state', 'wish'))
  t.notOk(memory.isClean('state', 'other'))
  t.end()
})

await t.test("changes that take a pod's own counts along are not kept for others", t => {
  const memory = new Memory()
  memory.keepChanges('state', 'wish', new Map([[4, '*nat\n[0:0] -A X\n[7:420] -A X -j RETURN\nCOMMIT\n']]))
  t.equal(memory.changes('state', 'wish'), undefined)
  t.end()
})

await t.test('a pod that brings about states without end does not fill it: the oldest go', t => {
  const memory = new Memory()
  for (let at = 0; at < 5000; at++) {
    memory.keepClean(`state-${at}`, 'wish')
    memory.keepChanges(`state-${at}`, 'wish', new Map())
  }
  const known = Array.from({ length: 5000 }, (_, at) => at).filter(at =>
    memory.isClean(`state-${at}`, 'wish'),
  )
  t.equal(known.length, 1024)
  t.equal(known.at(-1), 4999)
  t.equal(memory.changes('state-0', 'wish'), undefined)
  t.ok(memory.changes('state-4999', 'wish'))
  t.end()
})
