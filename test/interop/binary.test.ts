import { chmodSync, existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { run, runOk } from '../../lab/run.ts'
import { canRun, findZtunnel, NOT_FOUND } from '../helpers/ztunnel-binary.ts'

await t.test('without a binary that is said, with what to do about it', async t => {
  const peers = t.testdir()
  t.strictSame(await findZtunnel({ env: {}, peers }), { missing: NOT_FOUND })
  t.equal(NOT_FOUND, 'ztunnel not found: set ZTUNNEL_BIN')
})

await t.test('ZTUNNEL_BIN goes before everything, and must be a program', async t => {
  const dir = t.testdir({ ztunnel: '#!/bin/sh\n', 'ztunnel.xz': '' })
  const binary = join(dir, 'ztunnel')
  const env = { ZTUNNEL_BIN: binary }
  await t.rejects(findZtunnel({ env, peers: dir }), {
    code: 'INPUT',
    message: `ZTUNNEL_BIN is '${binary}', which cannot be run`,
  })
  chmodSync(binary, 0o755)
  t.strictSame(await findZtunnel({ env, peers: dir }), { binary })
})

const canUnpack = process.arch === 'x64' && (await canRun('xz'))

if (process.arch === 'x64')
  await t.test('without the program that unpacks it, the absence is said with both ways out', async t => {
    const dir = t.testdir({ 'ztunnel.xz': '' })
    const missing = `${NOT_FOUND}, or install no-such-xz to unpack ${join(dir, 'ztunnel.xz')}`
    t.strictSame(await findZtunnel({ env: {}, peers: dir, xz: 'no-such-xz' }), { missing })
  })

if (canUnpack)
  await t.test('a packed binary is unpacked once, for its owner only', async t => {
    const dir = t.testdir()
    const [peers, cache] = [join(dir, 'peers'), join(dir, 'cache')]
    mkdirSync(peers)
    const { stdout } = await runOk(['xz', '--stdout'], { input: '#!/bin/sh\necho I am it\n' })
    writeFileSync(join(peers, 'ztunnel.xz'), stdout)
    const [found, again] = await Promise.all([
      findZtunnel({ env: {}, peers, cache }),
      findZtunnel({ env: {}, peers, cache }),
    ])
    t.strictSame(again, found)
    const binary = 'binary' in found ? found.binary : ''
    t.equal((await run([binary])).stdout.toString(), 'I am it\n')
    t.equal(statSync(binary).mode & 0o777, 0o700)
    const { mtimeMs } = statSync(binary)
    t.strictSame(await findZtunnel({ env: {}, peers, cache }), found)
    t.equal(statSync(binary).mtimeMs, mtimeMs)
    t.notOk(existsSync(`${binary}.${process.pid}`))
  })

if (canUnpack)
  await t.test('one that cannot be unpacked is an error, not an absence', async t => {
    const dir = t.testdir({ 'ztunnel.xz': 'no xz' })
    await t.rejects(findZtunnel({ env: {}, peers: dir, cache: join(dir, 'cache') }), {
      code: 'TOOL',
      message: /could not be unpacked/,
    })
  })
