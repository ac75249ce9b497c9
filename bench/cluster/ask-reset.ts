/**
 * Asks the lab's server for a reset and tells what came. usage: node ask-reset.ts HOST PORT
 */
import { connect } from 'node:net'
import { errorCode } from '../../lib/errors.ts'

const [host = '', port = ''] = process.argv.slice(2)
const tell = (what: string) => process.stdout.write(`${what}\n`, () => process.exit(0))
const socket = connect({ host, port: Number(port) })
socket.on('error', err => tell(`a reset (${errorCode(err)})`))
socket.on('end', () => tell('a clean end'))
socket.on('connect', () => socket.write('RESET\n'))
socket.resume()
