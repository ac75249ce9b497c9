/** Listens on the Unix socket that is its argument until it is killed. */
import { createServer } from 'node:net'

createServer().listen(process.argv[2], () => process.send?.('listening'))
