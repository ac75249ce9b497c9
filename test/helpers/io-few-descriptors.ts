/** Takes 80 connections in a process that may not have so many descriptors at once. */
import { Listener } from '../../agent/io/listener.ts'
import { closeFd } from '../../agent/sys/fd.ts'
import { listenTcp } from '../../agent/sys/socket.ts'
import { localAddress } from '../../agent/sys/sockopt.ts'

const fd = listenTcp({ port: 0, ipv6: false })
const held: number[] = []
let taken = 0
let met: string | undefined
const listener = new Listener(
  fd,
  accepted => {
    held.push(accepted)
    if (++taken < 80) return
    listener.close()
    for (const each of held) closeFd(each)
    process.stdout.write(`${met}, then all ${taken}\n`)
  },
  err => {
    met = /E[A-Z]+/.exec(err.message)?.[0]
    for (const each of held.splice(0)) closeFd(each)
  },
)
process.stdout.write(`${localAddress(fd)!.port}\n`)
