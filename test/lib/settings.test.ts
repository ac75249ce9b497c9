import * as fc from 'fast-check'
import t from 'tap'
import { Cidr } from '../../lib/address.ts'
import { parseDurationMs, Settings } from '../../lib/settings.ts'

await t.test('settings are read in their own units', async t => {
  const settings = new Settings({
    TEXT: 'words',
    NUMBER: '42',
    NEGATIVE: '-1',
    PORT: '15012',
    ON: 'true',
    OFF: '0',
    WAIT: '1m30s',
    LEVEL: 'debug',
    RANGES: '10.0.0.0/8, fd00::/8',
    CA: 'https://ca.example:15012/',
  })
  t.equal(settings.string('TEXT'), 'words')
  t.equal(settings.optional('TEXT'), 'words')
  t.equal(settings.integer('NUMBER', 0), 42)
  t.equal(settings.integer('NEGATIVE', 0, -5), -1)
  t.equal(settings.port('PORT', 0), 15_012)
  t.equal(settings.boolean('ON', false), true)
  t.equal(settings.boolean('OFF', true), false)
  t.equal(settings.durationMs('WAIT', 0), 90_000)
  t.equal(settings.choice('LEVEL', ['info', 'debug'], 'info'), 'debug')
  t.strictSame(
    settings.cidrs('RANGES').map(cidr => cidr.text),
    ['10.0.0.0/8', 'fd00::/8'],
  )
  t.equal(settings.url('CA').host, 'ca.example:15012')
  settings.check()
})

await t.test('what is not set, or empty, has its default', async t => {
  const settings = new Settings({ EMPTY: '' })
  for (const name of ['EMPTY', 'ABSENT']) {
    t.equal(settings.string(name, 'default'), 'default')
    t.equal(settings.optional(name), undefined)
    t.equal(settings.integer(name, 7), 7)
    t.equal(settings.port(name, 80), 80)
    t.equal(settings.boolean(name, true), true)
    t.equal(settings.durationMs(name, 5), 5)
    t.equal(settings.choice(name, ['a', 'b'], 'b'), 'b')
    t.strictSame(settings.cidrs(name), [])
    t.equal(settings.cidrs(name, [Cidr.parse('10.0.0.0/8')])[0]?.text, '10.0.0.0/8')
    t.equal(settings.url(name, 'https://a/').href, 'https://a/')
  }
  settings.check()
})

await t.test('every problem is in one error, by name, with what was there', async t => {
  const settings = new Settings({
    NUMBER: '4.2',
    SMALL: '1',
    HUGE: '9'.repeat(400),
    PORT: '65536',
    FLAG: 'yes',
    WAIT: 'soon',
    LEVEL: 'loud',
    RANGES: '10.0.0.0/8,nowhere',
    CA: 'ca.example',
    PLAIN: 'http://ca.example',
  })
  settings.string('ABSENT')
  settings.integer('NUMBER', 0)
  settings.integer('SMALL', 5, 2)
  settings.integer('HUGE', 0)
  settings.port('PORT', 80)
  settings.boolean('FLAG', false)
  settings.durationMs('WAIT', 0)
  settings.choice('LEVEL', ['info', 'debug'], 'info')
  settings.cidrs('RANGES')
  settings.url('CA', 'https://a/')
  settings.url('PLAIN', 'https://a/')
  t.strictSame(settings.problems, [
    'ABSENT is not set',
    `NUMBER: '4.2' is not a whole number from 0 to ${Number.MAX_SAFE_INTEGER}`,
    `SMALL: '1' is not a whole number from 2 to ${Number.MAX_SAFE_INTEGER}`,
    `HUGE: '${'9'.repeat(400)}' is not a whole number from 0 to ${Number.MAX_SAFE_INTEGER}`,
    "PORT: '65536' is not a whole number from 0 to 65535",
    "FLAG: 'yes' is neither true nor false",
    "WAIT: 'soon' is not a duration (like 250ms, 10s, 1m30s, 24h)",
    "LEVEL: 'loud' is not one of info, debug",
    "RANGES: not a CIDR: 'nowhere'",
    "CA: 'ca.example' is not an https URL",
    "PLAIN: 'http://ca.example' is not an https URL",
  ])
  t.throws(() => settings.check(), {
    name: 'CulvertError',
    code: 'CONFIG',
    message: settings.problems.join('; '),
  })
})

await t.test('durations', async t => {
  for (const [text, milliseconds] of [
    ['0', 0],
    ['10', 10_000],
    ['1.5', 1500],
    ['250ms', 250],
    ['10s', 10_000],
    ['1m30s', 90_000],
    ['1.5h', 5_400_000],
    ['24h', 86_400_000],
    ['1d2h3m4s5ms', 93_784_005],
  ] as const)
    t.equal(parseDurationMs(text), milliseconds, text)
  for (const text of [
    '',
    ' ',
    '-1',
    '-1s',
    '1 s',
    '10S',
    '1e3',
    's',
    '1s2',
    '1,5s',
    '.5s',
    '5.',
    'Infinity',
    '1w',
  ])
    t.throws(() => parseDurationMs(text), { name: 'CulvertError', code: 'INPUT' }, JSON.stringify(text))
  for (const text of ['9'.repeat(400), `${'9'.repeat(400)}s`])
    t.throws(() => parseDurationMs(text), { code: 'INPUT' }, 'longer than a number can say')
})

await t.test('a duration is the sum of its parts', async () => {
  const part = fc.tuple(
    fc.nat({ max: 9999 }),
    fc.constantFrom(['ms', 1], ['s', 1000], ['m', 60_000], ['h', 3_600_000]),
  )
  fc.assert(
    fc.property(fc.array(part, { minLength: 1, maxLength: 4 }), parts => {
      const text = parts.map(([number, [unit]]) => `${number}${unit}`).join('')
      const sum = parts.reduce((sum, [number, [, unitMs]]) => sum + number * unitMs, 0)
      return parseDurationMs(text) === sum
    }),
  )
})

await t.test('any environment is read, its problems collected, without an error', async () => {
  fc.assert(
    fc.property(fc.option(fc.string(), { nil: undefined }), text => {
      const settings = new Settings({ X: text })
      settings.string('X', '')
      settings.integer('X', 0)
      settings.boolean('X', false)
      settings.durationMs('X', 0)
      settings.choice('X', ['a'], 'a')
      settings.cidrs('X')
      settings.url('X', 'https://a/')
      return settings.problems.every(problem => problem.startsWith('X: '))
    }),
  )
})
