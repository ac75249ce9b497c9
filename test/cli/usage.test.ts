import t from 'tap'
import { VERSION } from '../../lib/version.ts'
import { run } from '../../lab/run.ts'
import { CULVERT, culvert } from '../helpers/culvert.ts'
import { here } from '../helpers/here.ts'

await t.test('every verb explains itself, with examples', async t => {
  const lab = await here(t, ['lab', '--help'])
  t.equal(lab.code, 0)
  const verbs = [...lab.stdout.matchAll(/^ {2}([a-z-]+) .*\S/gm)].map(([, verb]) => verb!)
  for (const verb of [
    'up',
    'exec',
    'status',
    'pcap',
    'logs',
    'add-pod',
    'del-pod',
    'annotate',
    'replace-agent',
    'kill',
    'down',
  ]) {
    t.ok(verbs.includes(verb), verb)
    const { code, stdout, stderr } = await here(t, ['lab', verb, '--help'])
    t.equal(code, 0)
    t.equal(stderr, '')
    t.match(stdout, new RegExp(`^Usage: culvert lab ${verb}`))
    t.match(stdout, new RegExp(`Examples:\\n {2}culvert lab ${verb}`))
  }
})

await t.test('a reader that has seen enough ends it, without a word', async t => {
  const { stdout, stderr } = await run([
    'bash',
    '-c',
    '"$0" lab --help | :; echo "${PIPESTATUS[0]}"',
    CULVERT,
  ])
  t.equal(stdout.toString(), '141\n')
  t.equal(stderr, '')
})

await t.test('the verbs of a cluster explain themselves, too', async t => {
  for (const words of [['check'], ['install'], ['status'], ['uninstall'], ['upgrade', 'plan']]) {
    const { code, stdout, stderr } = await here(t, [...words, '--help'])
    t.equal(code, 0)
    t.equal(stderr, '')
    t.match(stdout, new RegExp(`^Usage: culvert ${words.join(' ')}`))
    t.match(stdout, new RegExp(`Examples:\\n {2}culvert ${words.join(' ')}`))
    t.match(stdout, '--kubeconfig')
  }
})

await t.test('wrong usage ends with 2, says what is wrong and where to read on', async t => {
  for (const [words, message, hint] of [
    [['labb'], /unknown command 'labb'/, 'culvert --help'],
    [['lab', 'upp'], /unknown command 'upp'\n\(Did you mean up\?\)/, 'culvert lab --help'],
    [['lab', 'up', '--nome', 'x'], /unknown option '--nome'/, 'culvert lab up --help'],
    [['lab', 'up', '--cert-ttl', 'soon'], /'soon' is not a duration/, 'culvert lab up --help'],
    [['lab', 'up', '--log-level', 'loud'], /'loud' is invalid/, 'culvert lab up --help'],
    [['lab', 'exec'], /missing required argument 'pod'/, 'culvert lab exec --help'],
    [['lab', 'exec', 'client'], /missing required argument 'command'/, 'culvert lab exec --help'],
    [['lab', 'kill', 'ca-server', '--signal', 'NOPE'], /'NOPE' is not a signal/, 'culvert lab kill --help'],
    [['check', '--pre', '--post'], /'--pre' cannot be used with option '--post'/, 'culvert check --help'],
    [['install', '--profile', 'loose'], /'loose' is invalid/, 'culvert install --help'],
    [['upgrade', 'plan', '--older-than', 'old'], /'old' is not a duration/, 'culvert upgrade plan --help'],
    [
      ['lab', 'del-pod', 'x', '--grace', 'long'],
      /not a whole number of seconds/,
      'culvert lab del-pod --help',
    ],
    [['lab', 'add-pod', 'x', '--label', 'x'], /'x' is not KEY=VALUE/, 'culvert lab add-pod --help'],
  ] as const) {
    const { code, stdout, stderr } = await here(t, words)
    t.equal(code, 2, words.join(' '))
    t.equal(stdout, '')
    t.match(stderr, /^culvert: /)
    t.match(stderr, message)
    t.match(stderr, `hint: ${hint}\n`)
  }
  t.match(await culvert(['lab', 'upp']), { code: 2, stdout: '', stderr: /^culvert: unknown command/ })
  t.match(await here(t, []), { code: 2, stderr: /^Usage: culvert/ }, 'no words at all: the help')
})

await t.test('what does not exist is an error of 1 with a hint; bad input one of 2', async t => {
  for (const words of [['status'], ['exec', 'client', 'true'], ['logs'], ['pcap'], ['kill', 'ca-server']])
    t.match(await here(t, ['lab', words[0]!, '--name', 'nosuchlab', ...words.slice(1)]), {
      code: 1,
      stdout: '',
      stderr: /^culvert: lab 'nosuchlab' is not up\nhint: .*\n$/,
    })
  t.match(await here(t, ['lab', 'status', '--name', 'a/b']), {
    code: 1,
    stderr: /'a\/b' cannot be a lab's name/,
  })
  t.match(await here(t, ['lab', 'annotate', 'namespace/x', 'nothing']), {
    code: 2,
    stderr: /neither KEY=VALUE nor KEY-/,
  })
  t.match(await here(t, ['lab', 'add-pod']), { code: 2, stderr: /by its name or from a file/ })
  t.match(await culvert(['lab', 'add-pod', '-f', '-'], { input: 'kind: Pod' }), {
    code: 2,
    stderr: /-: document 1 \(Pod\): apiVersion is required/,
  })
})

await t.test('taking down what is not there is no error', async t => {
  t.match(await here(t, ['lab', 'down', '--name', 'nosuchlab']), {
    code: 0,
    stdout: /not up, and nothing is left/,
  })
})

await t.test('without a terminal there are no colours', async t => {
  const { stderr } = await here(t, ['lab', 'status', '--name', 'nosuchlab'])
  t.notOk(stderr.includes('\u001b'))
})

await t.test('the version is the package’s', async t => {
  t.match(await here(t, ['--version']), { code: 0, stdout: `${VERSION}\n` })
})
