import { once } from 'node:events'
import { readdirSync, readlinkSync } from 'node:fs'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import t from 'tap'
import type { SocketAddress } from '../../../lib/address.ts'
import { connectionInode, listeningHere } from '../../../agent/sys/socket-diag.ts'

const server = createServer()
server.listen(0, '::')
await once(server, 'listening')
t.teardown(() => server.close())
const { port } = server.address() as AddressInfo

await t.test('who listens is told', async t => {
  t.ok(listeningHere()?.has(port))
})

await t.test(
  'a connection is known from either of its ends, by the socket that this end has open',
  async t => {
    for (const host of ['127.0.0.1', '::1']) {
      const accepted = once(server, 'connection') as Promise<[Socket]>
      const client = connect(port, host)
      await once(client, 'connect')
      const [peer] = await accepted
      const here = { ip: host, port: client.localPort! }
      const there = { ip: host, port }
      t.ok(isOpen(connectionInode(here, there)), host)
      t.ok(isOpen(connectionInode(there, here)))
      t.not(connectionInode(here, there), connectionInode(there, here), 'two ends, two sockets')
      t.equal(connectionInode(here, { ...there, port: port === 1 ? 2 : 1 }), undefined, 'to another port')
      // A listener at the local end is no connection.
      t.equal(connectionInode(there, { ...here, port: here.port ^ 1 }), undefined, 'from another port')
      client.destroy()
      await once(peer.resume(), 'end')
      t.equal(connectionInode(here, there), 0n, 'closed by whoever had it')
      peer.destroy()
    }
  },
)

await t.test('a look leaves nothing open', async t => {
  const rounds = 1000
  const [from, to] = [1, 2].map(port => ({ ip: '127.0.0.1', port })) as [SocketAddress, SocketAddress]
  const open = readdirSync('/proc/self/fd').length
  const before = process.cpuUsage()
  for (let at = 0; at < rounds; at++) connectionInode(from, to)
  const { user, system } = process.cpuUsage(before)
  t.comment(`${(user + system) / rounds} µs`)
  t.equal(readdirSync('/proc/self/fd').length, open)
})

/** Reports whether this process has the socket open. */
function isOpen(inode: bigint | undefined): boolean {
  return readdirSync('/proc/self/fd').some(fd => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === `socket:[${inode}]`
    } catch {
      return false // that of the listing itself
    }
  })
}
