import t from 'tap'
import { loop } from '../../../agent/io/loop.ts'
import { isShared, Mover } from '../../../agent/io/portion.ts'

const KIB = 1024
const turn = () => new Promise<void>(resolve => loop.nextTurn(resolve))

await t.test(
  'portions are large while nothing but bulk moves, also when it has few bytes now and then',
  async t => {
    const bulk = new Mover()
    bulk.moved(256 * KIB)
    bulk.moved(10)
    bulk.moved(256 * KIB)
    t.notOk(isShared())
  },
)

await t.test(
  'portions are small as long as something small moves beside it, and large again after that',
  async t => {
    const bulk = new Mover()
    const requests = new Mover()
    bulk.moved(256 * KIB)
    requests.moved(64)
    bulk.moved(256 * KIB)
    t.ok(isShared())
    while (isShared()) await turn()
    bulk.moved(10)
    t.ok(isShared(), 'what has moved no bulk lately is small')
  },
)

await t.test('what moves at a middling size is neither', async t => {
  while (isShared()) await turn()
  new Mover().moved(32 * KIB)
  t.notOk(isShared())
})
