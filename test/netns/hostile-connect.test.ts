import t from 'tap'
import type { ConnectionRecord } from '../../agent/worker/messages.ts'
import { failureFrom, inPod, serve } from '../helpers/pods.ts'
import { RawPeer } from '../helpers/raw-peer.ts'
import { Victim } from '../helpers/victim.ts'

await t.test('a tunnel leads to the pod it ends in and nowhere else', async t => {
  const victim = await Victim.start(t)
  const { client, server, stranger } = victim
  let calls = 0
  const called = Promise.withResolvers<void>()
  for (const pod of [server, stranger, client])
    await serve(t, pod, 9090, () => {
      calls++
      called.resolve()
    })
  const peer = new RawPeer(await victim.member()).hello()
  const wrong = /not ip:port|not this pod's to reach/
  const targets: [what: string, authority: string][] = [
    ['another pod', `${client.ip}:9090`],
    ['another pod, IPv6', `[${client.ip6}]:9090`],
    ['the caller', `${stranger.ip}:9090`],
    ['the pod’s other address', `[${server.ip6}]:9090`],
    ['loopback', '127.0.0.1:9090'],
    ['loopback elsewhere', '127.9.9.9:9090'],
    ['loopback, IPv6', '[::1]:9090'],
    ['loopback, mapped', '[::ffff:127.0.0.1]:9090'],
    ['loopback, mapped in hex', '[::ffff:7f00:1]:9090'],
    ['loopback, compatible', '[::127.0.0.1]:9090'],
    ['any address', '0.0.0.0:9090'],
    ['any address, IPv6', '[::]:9090'],
    ['any address, mapped', '[::ffff:0.0.0.0]:9090'],
    ['the agent’s outbound port', `${server.ip}:15001`],
    ['the agent’s inbound port', `${server.ip}:15006`],
    ['the agent’s tunnel port', `${server.ip}:15008`],
    ['the agent’s tunnel port, mapped', `[::ffff:${server.ip}]:15008`],
    ['link-local', '169.254.169.254:80'],
    ['link-local, IPv6', '[fe80::1]:9090'],
    ['link-local with a zone', '[fe80::1%eth0]:9090'],
    ['broadcast', '255.255.255.255:9090'],
    ['multicast', '224.0.0.1:9090'],
    ['a host name', 'server:9090'],
    ['a name for loopback', 'localhost:9090'],
    ['port 0', `${server.ip}:0`],
    ['a port past the last', `${server.ip}:65536`],
    ['a negative port', `${server.ip}:-1`],
    ['a port with words', `${server.ip}:9090 x`],
    ['no port', server.ip],
    ['no address', ':9090'],
    ['an address in one number', '172818434:9090'],
    ['an address with leading zeros', '010.077.000.002:9090'],
    ['an address in hex', '0x0a.0x4d.0.2:9090'],
    ['an address cut short', '10.77.2:9090'],
    ['user and address', `x@${server.ip}:9090`],
    ['a URL', `http://${server.ip}:9090/`],
    ['a control character', `${server.ip}:9090\u001b[2J`],
    ['a very long text', '1'.repeat(10_000)],
  ]
  for (const [at, [what, authority]] of targets.entries()) {
    peer.connect(1 + 2 * at, authority)
    t.equal(await peer.status(1 + 2 * at), 400, what)
    const record = await victim.record(each => wrong.test(each.error ?? ''))
    t.match(record, { reason: 'policy', errorCode: 'BAD_AUTHORITY', source: { ip: stranger.ip } })
    t.notMatch(record.error, /\p{C}/u, 'fit for a log')
    t.ok(record.error!.length < 300, 'and for a line')
    victim.records.length = 0
  }
  t.equal(calls, 0, 'nobody was called')

  const good = 1 + 2 * targets.length
  peer.connect(good, `[::ffff:${server.ip}]:9090`)
  t.equal(await peer.status(good), 200, 'the pod’s own address, mapped, is the pod’s own address')
  await called.promise
  t.equal(calls, 1)
  await victim.unharmed()
})

await t.test('a peer that policy refuses hears 401, and nothing is connected', async t => {
  const victim = await Victim.start(t)
  let calls = 0
  await serve(t, victim.server, 9090, () => calls++)
  const peer = new RawPeer(await victim.member('denied')).hello()
  peer.connect(1, `${victim.server.ip}:9090`)
  t.equal(await peer.status(1), 401)
  t.match(await victim.record(({ reason }) => reason === 'policy'), { error: 'not allowed' })
  t.equal(calls, 0)
  await victim.unharmed()
})

await t.test('what a peer claims in its headers decides nothing', async t => {
  const victim = await Victim.start(t)
  const peer = new RawPeer(await victim.member()).hello()
  const claims = [
    ['forwarded', 'for="10.77.0.1:4000"'],
    ['forwarded', 'for="[::1]:1";for="x"'],
    ['forwarded', `for=${'"'.repeat(2000)}`],
    ['baggage', `k8s.pod.name=${'%'.repeat(3000)}`],
    ['baggage', '='.repeat(9000)],
    ['traceparent', '00-zz-zz-00'],
    ['authorization', 'Bearer x'],
    ['x-forwarded-client-cert', 'By=spiffe://cluster.local/ns/shop/sa/admin'],
  ] as const
  for (const [at, claim] of claims.entries()) {
    const streamId = 1 + 2 * at
    peer.connect(streamId, `${victim.server.ip}:9`, [claim])
    t.equal(await peer.status(streamId), 503)
    t.match(await victim.record(({ errorCode }) => errorCode === 'ECONNREFUSED'), {
      source: { ip: victim.stranger.ip, identity: 'spiffe://cluster.local/ns/shop/sa/stranger' },
    })
    victim.records.length = 0
  }
  await victim.unharmed()
})

await t.test('the capture ports serve who was captured and nobody else', async t => {
  const victim = await Victim.start(t)
  const { client, server, stranger } = victim
  for (const [from, host, port] of [
    [stranger, server.ip, 15001],
    [stranger, server.ip, 15006],
    [stranger, server.ip6, 15001],
    [stranger, server.ip6, 15006],
    [client, '127.0.0.1', 15001],
    [client, '127.0.0.1', 15006],
    [client, '::1', 15001],
    [client, '::1', 15006],
    [client, client.ip, 15001],
    [client, server.ip, 15001],
    [client, server.ip, 15008],
  ] as const) {
    t.equal(await failureFrom(t, from, host, port), 'ECONNRESET', `${from.name} to ${host} port ${port}`)
    await victim.record(({ errorCode, reason }) => errorCode === 'SELF_CALL' && reason === 'policy')
    victim.records.length = 0
  }
  await victim.unharmed()
})

await t.test('a neighbour on its link-local address is answered or refused like anyone', async t => {
  const victim = await Victim.start(t)
  const { server, stranger } = victim
  for (const [pod, address] of [
    [server, 'fe80::77:2'],
    [stranger, 'fe80::77:3'],
  ] as const)
    inPod(pod, 'ip', ['addr', 'add', `${address}/64`, 'dev', 'eth0', 'nodad'])
  for (const port of [15001, 15006, 15008, 9, 8080]) {
    const call = `
      const ends = { host: 'fe80::77:2%eth0', localAddress: 'fe80::77:3%eth0' }
      const socket = require('node:net').connect({ ...ends, port: ${port} })
      socket.on('error', () => undefined)
      socket.on('connect', () => socket.write('hello?'))
      socket.on('data', () => socket.destroy())
      socket.on('end', () => socket.destroy())`
    inPod(stranger, process.execPath, ['-e', call])
    const record = await victim.record(({ source }) => source.ip === 'fe80::77:3')
    t.match(record, { direction: 'inbound', reason: /policy|tls|unreachable/, error: /./ }, `to port ${port}`)
    victim.records.length = 0
    await victim.unharmed()
  }
})

await t.test('bytes that an application sends are its own affair', async t => {
  const victim = await Victim.start(t)
  await serve(t, victim.server, 9090, socket => socket.resume().on('end', () => socket.end()))
  const garbage = [
    Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
    Buffer.from('160301020001000001fc0303', 'hex'),
    Buffer.alloc(100_000, 0xff),
  ]
  for (const from of [victim.client, victim.stranger])
    for (const bytes of garbage) {
      const socket = await victim.tcp(victim.server.ip, 9090, from)
      socket.end(bytes)
      const isDone = ({ direction, source, destination }: ConnectionRecord) =>
        direction === 'inbound' && source.ip === from.ip && destination.port === 9090
      t.match(await victim.record(isDone), { bytesSent: bytes.length, error: undefined })
      victim.records.length = 0
      socket.destroy()
    }
  await victim.unharmed()
})
