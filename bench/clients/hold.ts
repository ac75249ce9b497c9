/**
 * Opens connections and keeps them. Each line that it reads is how many are to be open; it answers with a line when
 * they are, every one of them having carried a byte there and back. Ends when its input does.
 *
 * usage: node hold.ts HOST PORT
 */
import { createInterface } from 'node:readline'
import { argument, dial, stop, tell } from './program.ts'

/** Begun at a time: fewer than any backlog on the way. */
const AT_A_TIME = 64

const port = argument(1)
let open = 0

async function another(): Promise<void> {
  const socket = await dial(port, err => stop(`with ${open} connections open: ${err.message}`))
  await new Promise<void>(resolve => {
    socket.once('data', () => resolve())
    socket.once('close', () => stop(`a connection was ended, of ${open} open ones`))
    socket.write('x')
  })
  open++
}

async function openUpTo(count: number): Promise<void> {
  let toBegin = count - open
  const loop = async () => {
    while (toBegin-- > 0) await another()
  }
  await Promise.all(Array.from({ length: AT_A_TIME }, loop))
}

const input = createInterface({ input: process.stdin })
input.on('line', line => {
  openUpTo(Number(line)).then(() => tell({ open }), stop)
})
input.on('close', () => process.exit(0))
