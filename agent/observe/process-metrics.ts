/** What the process itself uses. Read when scraped; nothing runs in between. */
import { readFileSync, readdirSync } from 'node:fs'
import { performance } from 'node:perf_hooks'
import { Counter, Gauge, type Registry } from 'prom-client'
import { ownMemory } from '../../lib/memory.ts'

/** Adds the usual `process_*` metrics and how busy the main thread is. */
export function registerProcessMetrics(registry: Registry, startedAtMs: number): void {
  const registers = [registry]
  const cpu = new Counter({
    name: 'process_cpu_seconds_total',
    help: 'User and system CPU time of all threads',
    registers,
    collect() {
      const { user, system } = process.cpuUsage()
      this.reset()
      this.inc((user + system) / 1e6)
    },
  })
  cpu.inc(0)
  const gauge = (name: string, help: string, read: () => number | undefined) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        const value = read()
        if (value !== undefined) this.set(value)
      },
    })
  gauge('process_resident_memory_bytes', 'Resident memory', () => process.memoryUsage.rss())
  gauge(
    'culvert_anonymous_memory_bytes',
    'Resident memory without pages of files: what the process alone has need of',
    ownMemory,
  )
  gauge('process_open_fds', 'Open file descriptors', () => readdirSync('/proc/self/fd').length)
  gauge('process_max_fds', 'Limit of open file descriptors', maxFds)
  gauge('process_start_time_seconds', 'Unix time at which the process started', () => startedAtMs / 1000)
  let last = performance.eventLoopUtilization()
  gauge(
    'culvert_event_loop_utilization',
    'Part of the time since the last scrape that the main thread was busy',
    () => {
      const now = performance.eventLoopUtilization()
      const { utilization } = performance.eventLoopUtilization(now, last)
      last = now
      return utilization
    },
  )
}

function maxFds(): number | undefined {
  const match = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))
  return match ? Number(match[1]) : undefined
}
