import * as fc from 'fast-check'
import t from 'tap'
import { KeptAnswers } from '../../../agent/proxy/kept-answers.ts'

await t.test('an answer is kept, and shared by those who ask while it is on its way', async t => {
  const map = new KeptAnswers<string, Promise<number>>(10)
  const { promise, resolve } = Promise.withResolvers<number>()
  let asked = 0
  const ask = () => {
    asked++
    return promise
  }
  const both = [map.getOrAsk('a', ask), map.getOrAsk('a', ask)]
  resolve(7)
  t.strictSame(await Promise.all(both), [7, 7])
  t.equal(await map.getOrAsk('a', ask), 7)
  t.equal(asked, 1)
  map.clear()
  await map.getOrAsk('a', ask)
  t.equal(asked, 2)
})

await t.test('an answer that fails is told to whoever waits, and not kept', async t => {
  const map = new KeptAnswers<string, Promise<number>>(10)
  const failing = () => Promise.reject(new Error('no'))
  await t.rejects(map.getOrAsk('a', failing), { message: 'no' })
  t.equal(map.size, 0)
  t.equal(await map.getOrAsk('a', () => Promise.resolve(1)), 1)
})

await t.test('a late failure does not take a newer answer with it', async t => {
  const map = new KeptAnswers<string, Promise<number>>(10)
  const { promise, reject } = Promise.withResolvers<number>()
  const first = map.getOrAsk('a', () => promise)
  map.clear()
  void map.getOrAsk('a', () => Promise.resolve(2))
  reject(new Error('late'))
  await t.rejects(first)
  t.equal(await map.getOrAsk('a', () => Promise.resolve(3)), 2)
})

await t.test('the half that was used last is there for certain, and never more than all', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 2, max: 9 }), fc.array(fc.nat(12)), async (capacity, keys) => {
      const map = new KeptAnswers<number, Promise<number>>(capacity)
      let used: number[] = []
      for (const key of keys) {
        let wasAsked = false
        await map.getOrAsk(key, () => {
          wasAsked = true
          return Promise.resolve(key)
        })
        if (wasAsked && used.slice(-Math.floor(capacity / 2)).includes(key)) return false
        used = [...used.filter(each => each !== key), key]
        if (map.size > capacity) return false
      }
      return true
    }),
  )
})
