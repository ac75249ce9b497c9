/** For what must be fast, on a machine that also does something else. */

/**
 * The shortest time that a round took, ms. What others do to the time of a round is in some of them, what the code itself
 * takes is in each.
 */
export async function fastestMs(rounds: number, once: (round: number) => Promise<void>): Promise<number> {
  let fastest = Infinity
  for (let round = 0; round < rounds; round++) {
    const startMs = performance.now()
    await once(round)
    fastest = Math.min(fastest, performance.now() - startMs)
  }
  return fastest
}
