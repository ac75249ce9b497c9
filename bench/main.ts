/** The bench, as `npm run bench` starts it. */
import { runProgram } from './program.ts'

process.exitCode = await runProgram(process.argv.slice(2))
