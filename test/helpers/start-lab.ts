/**
 * A program that starts a lab as its arguments say (a name and JSON of options), says `up` and stays: for tests of
 * what becomes of a lab when whoever started it goes.
 */
import { startLab, type StartOptions } from '../../lab/lab.ts'

const options = JSON.parse(process.argv[2] ?? '{}') as StartOptions
await startLab(options)
process.stdout.write('up\n')
setInterval(() => undefined, 60_000)
