/** The processes of a pod, on its node, with the node's processes in sight: those whose cgroup names its uid. */
import { readdirSync, readFileSync } from 'node:fs'

/** Their numbers. */
export function processesOf(uid: string): number[] {
  const names = [uid, uid.replaceAll('-', '_')] // the systemd driver writes the second
  return readdirSync('/proc')
    .map(Number)
    .filter(pid => {
      if (!Number.isInteger(pid)) return false
      try {
        const cgroup = readFileSync(`/proc/${pid}/cgroup`, 'latin1')
        return names.some(name => cgroup.includes(name))
      } catch {
        return false // gone meanwhile
      }
    })
}
