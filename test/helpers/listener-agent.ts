/**
 * An agent reduced to its listeners, as a process that tests may kill: takes the sockets of one pod and, when told to
 * serve, answers each connection on the inbound port with a word. Arguments: run directory, pod UID, namespace, word.
 * Prints `ready`. Without a word it accepts nothing.
 */
import { createServer } from 'node:net'
import { ListenerKeeper } from '../../agent/pods/listeners.ts'
import { openNetns } from '../../agent/sys/netns.ts'
import { quietLog } from './quiet-log.ts'

const [runDir, podUid, netns, word] = process.argv.slice(2)
const keeper = new ListenerKeeper({ runDir: runDir!, log: quietLog().log })
const { inbound } = await keeper.acquire(podUid!, openNetns(netns!))
if (word) {
  const server = createServer(socket => {
    socket.on('error', () => undefined)
    socket.end(word)
  })
  server.listen({ fd: inbound, backlog: 4096 }, () => process.stdout.write('ready\n'))
} else {
  process.stdout.write('ready\n')
  setInterval(() => undefined, 60_000)
}
