/** A session is worth its connection window as long as it lives, however the streams before have ended. */
import { once } from 'node:events'
import t from 'tap'
import { relayTunnel } from '../../../agent/proxy/relay.ts'
import { watchRelay } from '../../helpers/relays.ts'
import { agentPair } from '../../helpers/tcp.ts'
import { Receiver, sessionPair } from '../../helpers/tunnel.ts'

const MIB = 1024 * 1024
const PIECE = Buffer.alloc(MIB / 8)
const HOUR_MS = 3_600_000
/** What each leaves behind is more than 1 MiB of a connection window of 16 MiB, if it does. */
const STREAMS = 18

for (const [how, isReset] of [
  ['took the last bytes after both ends', false],
  ['was reset with bytes on their way to it, after both ends', true],
] as const)
  await t.test(`the window is whole again when an application ${how}`, { timeout: 280_000 }, async t => {
    const { client, next } = await sessionPair(t)
    for (let stream = 0; stream < STREAMS; stream++) {
      const opening = client.connect('10.0.0.1:80', [])
      const request = await next()
      request.respond(200)
      const { tunnel } = await opening
      const [app, agents] = await agentPair(t)
      app.on('error', () => undefined)
      app.pause()
      app.end()
      const relay = watchRelay(owner => relayTunnel(agents, tunnel, owner, HOUR_MS))
      await new Receiver(request.tunnel).ended
      // More than the kernel takes, so that the last of it waits for the application; and a little at a time, so that
      // nothing of it waits for room in the stream's window, and the end with it.
      const stuck = AbortSignal.timeout(60_000)
      for (let written = 0; agents.queued < MIB && !stuck.aborted;) {
        if (relay.toApp === written) {
          request.tunnel.write(PIECE)
          written += PIECE.length
        }
        await new Promise(resolve => setImmediate(resolve))
      }
      const over = new Promise<void>(resolve => request.tunnel.onClosed(() => resolve()))
      request.tunnel.end()
      if (!stuck.aborted) await over
      t.notOk(stuck.aborted, `stream ${stream} has its window`)
      if (stuck.aborted) return
      if (isReset) app.resetAndDestroy()
      else {
        app.resume()
        await once(app, 'end')
      }
      await relay.ended
    }
  })
