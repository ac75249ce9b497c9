/**
 * Stands in for a kubelet in a lab: a process of the name it is given, which makes the probes that it is told of, one a
 * line, and answers each with a line.
 *
 * usage: node stand-in-kubelet.ts NAME
 *
 * | line | what it does | answers |
 * |---|---|---|
 * | http URL | asks, on a connection of its own | the status, or the error's code |
 * | tcp HOST PORT | connects, and closes at once | `connected`, or the error's code |
 */
import { request } from 'node:http'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { errorCode } from '../../lib/errors.ts'

process.title = process.argv[2] ?? 'kubelet'

function answer(text: string): void {
  process.stdout.write(`${text}\n`)
}

createInterface({ input: process.stdin })
  .on('line', line => {
    const [verb, target = '', port] = line.split(' ')
    const failed = (err: Error) => answer(errorCode(err) ?? err.message)
    if (verb === 'http')
      request(target, { agent: false }, response => {
        response.resume()
        response.on('end', () => answer(String(response.statusCode)))
      })
        .on('error', failed)
        .end()
    else {
      const socket = connect({ host: target, port: Number(port) }, () => {
        socket.destroy()
        answer('connected')
      })
      socket.on('error', failed)
    }
  })
  .on('close', () => process.exit(0))
answer('ready')
