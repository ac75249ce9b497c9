/** No mesh: the two pods talk to each other. What the machine, the kernel and the bench's own programs take. */
import type { Arm } from './arm.ts'

export function noneArm(): Arm {
  return {
    name: 'none',
    tools: [],
    find: async () => ({}),
    set: async () => ({
      config: '',
      start: () => ({ startedAtNs: process.hrtime.bigint(), agents: [], check: () => undefined }),
      stop: async () => undefined,
    }),
  }
}
