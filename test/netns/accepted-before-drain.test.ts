import { once } from 'node:events'
import t from 'tap'
import { meshPair, tunnelTo } from '../helpers/mesh-pair.ts'
import { connectFrom, serve } from '../helpers/pods.ts'

await t.test(
  'what was accepted before the agent drains is carried, though its way was not known yet',
  async t => {
    const { client, server } = await meshPair(t)
    await serve(t, server, 8080, socket => socket.pipe(socket))
    const asked = Promise.withResolvers<void>()
    const answer = Promise.withResolvers<void>()
    client.route = async ({ ip, port }) => {
      asked.resolve()
      await answer.promise
      return tunnelTo(server, ip, port)
    }
    const app = await connectFrom(t, client, server.ip, 8080)
    app.write('hello')
    await asked.promise
    client.plane.handle({ type: 'drain', drain: { deadlineMs: 5000 } })
    answer.resolve()
    const seen = await Promise.race([
      once(app, 'data').then(([chunk]) => String(chunk)),
      client.record(({ error }) => error !== undefined).then(({ error }) => error),
    ])
    t.equal(seen, 'hello')
  },
)
