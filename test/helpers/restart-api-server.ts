/** Kills the API server of a local cluster (`kube-up DIR`) and starts it again as it was. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Backoff } from '../../lib/backoff.ts'

/** Reports whether the cluster's control plane runs on this machine, below `directory`. */
export function canRestartApiServer(directory: string): boolean {
  return existsSync(join(directory, 'pids/kube-apiserver')) && process.getuid?.() === 0
}

/** Ends when the new one runs; it may take some seconds more until it answers. */
export async function restartApiServer(directory: string): Promise<void> {
  const pid = recorded(directory, 'kube-apiserver')
  const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1)
  process.kill(pid, 'SIGKILL')
  const backoff = new Backoff({ firstMs: 10, maxMs: 100 })
  while (isAlive(pid)) await backoff.wait(new AbortController().signal)
  const log = openSync(join(directory, 'logs/kube-apiserver.log'), 'a')
  const network = `--net=/proc/${recorded(directory, 'etcd')}/ns/net`
  const child = spawn('nsenter', [network, ...argv], { detached: true, stdio: ['ignore', log, log] })
  await once(child, 'spawn')
  child.unref()
  writeFileSync(join(directory, 'pids/kube-apiserver'), `${child.pid} ${startTime(child.pid!)}\n`)
}

function recorded(directory: string, component: string): number {
  return Number(readFileSync(join(directory, 'pids', component), 'utf8').split(' ')[0])
}

function isAlive(pid: number): boolean {
  return existsSync(`/proc/${pid}/exe`) // a process that nobody has waited for has none
}

/** Ticks since the machine's start (proc_pid_stat(5), field 22): by it the kit knows its own processes. */
function startTime(pid: number): string {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]!
}
