/**
 * Starts a client program in a pod that whoever started it cannot send signals to: the end of standard input stands for
 * SIGTERM. The program's own arguments follow.
 *
 * usage: node in-pod.ts PROGRAM [ARGUMENT…]
 */
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

const [program = '', ...args] = process.argv.slice(2)
process.argv.splice(1, process.argv.length, resolve(program), ...args)
process.stdin.on('error', () => undefined)
process.stdin.on('end', () => process.kill(process.pid, 'SIGTERM'))
process.stdin.resume()
await import(pathToFileURL(resolve(program)).href)
