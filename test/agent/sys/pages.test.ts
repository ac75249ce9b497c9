import t from 'tap'
import { readFileSync } from 'node:fs'
import { programPages, releasePages } from '../../../agent/sys/pages.ts'

const mapping = (range: string, mode: string, path: string, anonymousKib = 0, dirtyKib = 0) =>
  `${range} ${mode} 00000000 fe:00 5317856                            ${path}
Size:                184 kB
Rss:                 100 kB
Private_Dirty:         ${dirtyKib} kB
Anonymous:             ${anonymousKib} kB
VmFlags: rd ex mr mw me
`

await t.test('only unchanged, read-only ranges of the program are taken', async t => {
  const smaps = [
    mapping('00400000-0082e000', 'r--p', '/usr/bin/node'),
    mapping('0082e000-03489000', 'r-xp', '/usr/bin/node'),
    mapping('072a7000-072dc000', 'r--p', '/usr/bin/node', 24),
    mapping('072dc000-07308000', 'rw-p', '/usr/bin/node'),
    mapping('07308000-07309000', 'r--p', '/usr/bin/node', 0, 4),
    mapping('07309000-0730a000', 'r--s', '/usr/bin/node'),
    mapping('7f0000000000-7f0000001000', 'r-xp', '/usr/lib/libc.so.6'),
    mapping('7f0000002000-7f0000003000', 'r-xp', ''),
    mapping('7f0000004000-7f0000215000', 'r-xp', '/usr/bin/node'),
  ].join('')
  t.same(programPages(smaps, '/usr/bin/node'), [
    { start: 0x400000, length: 0x42e000 },
    { start: 0x82e000, length: 0x2c5b000 },
    { start: 0x7f0000004000, length: 0x211000 },
  ])
})

await t.test(
  'the process goes on after its pages were released, with less of the program resident',
  async t => {
    const resident = () => Number(/^RssFile:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))![1])
    const before = resident()
    releasePages()
    const after = resident()
    t.ok(after < before - 10_000, `${before} kB of files before, ${after} kB after`)
    t.equal(JSON.parse(JSON.stringify({ still: 'here' })).still, 'here')
    t.match(
      await import('node:zlib').then(zlib => zlib.gunzipSync(zlib.gzipSync('whole')).toString()),
      'whole',
    )
  },
)
