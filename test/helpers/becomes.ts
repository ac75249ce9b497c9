import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'

/** Most of what is waited for comes in the next turns of the loop. */
const TURNS = 20
const MOST_MS = 10

/** Waits for what only a look can tell. After the first turns the processor is free for those who bring it about. */
export async function becomes(is: () => boolean | Promise<boolean>): Promise<void> {
  for (let looks = 1; !(await is()); looks++)
    await (looks <= TURNS ? turn() : sleep(Math.min(looks - TURNS, MOST_MS)))
}
