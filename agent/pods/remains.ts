/** What an agent before this one has left in a pod that is not in the mesh any more. */
import { closeSync } from 'node:fs'
import { removeRedirect } from '../redirect/apply.ts'
import { openNetns } from '../sys/netns.ts'
import type { ListenerKeeper } from './listeners.ts'
import type { LocalPod } from './source.ts'

/** Takes away its rules and its listening sockets. Throws `NETNS`, or what removing rules throws. */
export async function clearRemains({ uid, netns }: LocalPod, keeper: ListenerKeeper): Promise<void> {
  const netnsFd = openNetns(netns)
  try {
    await removeRedirect(netnsFd, { keepReturnPath: false })
  } finally {
    closeSync(netnsFd)
  }
  keeper.release(uid)
}
