/**
 * Programs, takes away, inspects and counts the redirection of one pod's namespace. Everything may be repeated:
 * what is already as it should be is not touched, and keeps its counters. Two calls for one namespace never
 * overlap, whoever makes them.
 */
import { closeFd, dupFd } from '../sys/fd.ts'
import { netnsInode } from '../sys/netns.ts'
import type { Counters, CounterName } from './counters.ts'
import { Iptables } from './iptables.ts'
import { renderTable, tableDrift } from './plan.ts'
import { addReturnRoutes, familiesOf, removeReturnRoutes, returnRoutesDrift } from './return-path.ts'
import { CHAINS, describeRules, TABLES, type Family, type RuleSet, type Table } from './rules.ts'
import { parseSaved, type SavedTables } from './saved.ts'
import type { RedirectSettings } from './settings.ts'

/** Somebody else may change the tables between reading and writing them; then both are done again. */
const ATTEMPTS = 3

const MAX_BYPASSES_NAMED = 5

const NOTHING: RuleSet = { rules: [], policies: [] }

export interface Inspection {
  /**
   * One sentence for each thing that is not as it should be and that `applyRedirect` puts right, `IPv4 nat: …`.
   * What stands before the colon is one of a few.
   */
  readonly drift: string[]
  /** The same for what it cannot put right: rules of the pod's own that get around the capture. */
  readonly bypasses: string[]
}

export interface RemoveOptions {
  /**
   * Leave what the open connections need that the agent has with the pod: the way back, and with it connection
   * tracking, which the kernel puts to sleep with the last rule that asks for it. `removeReturnPath` takes it
   * once they have ended. @default false
   */
  readonly keepReturnPath?: boolean
}

/**
 * Makes the namespace's rules and routing what the settings ask for. The listeners must stand before: from the
 * moment this returns, new connections go to them. Throws `REDIRECT`, `TOOL`, `SYSCALL` or `NETNS`.
 */
export function applyRedirect(podNetnsFd: number, settings: RedirectSettings): Promise<void> {
  return inTurn(podNetnsFd, async netnsFd => {
    addReturnRoutes(netnsFd)
    await program(netnsFd, describeRules(settings), TABLES)
  })
}

/**
 * Takes the rules and the routing away. Connections that were redirected live on only with `keepReturnPath`.
 * Nothing of ours being there is fine. Throws like `applyRedirect`.
 */
export function removeRedirect(podNetnsFd: number, options: RemoveOptions = {}): Promise<void> {
  return inTurn(podNetnsFd, async netnsFd => {
    // The lock before the capture, or what is no longer captured would be dropped.
    await program(netnsFd, NOTHING, ['filter', 'nat'])
    if (!options.keepReturnPath) await dropReturnPath(netnsFd)
  })
}

/** Takes the rest away that `keepReturnPath` left. Throws like `applyRedirect`. */
export function removeReturnPath(podNetnsFd: number): Promise<void> {
  return inTurn(podNetnsFd, netnsFd => dropReturnPath(netnsFd))
}

async function dropReturnPath(netnsFd: number): Promise<void> {
  await program(netnsFd, NOTHING, ['mangle'])
  removeReturnRoutes(netnsFd)
}

/** Compares the namespace with what the settings ask for. Throws like `applyRedirect`. */
export function inspectRedirect(podNetnsFd: number, settings: RedirectSettings): Promise<Inspection> {
  return inTurn(podNetnsFd, async netnsFd => {
    const ruleSet = describeRules(settings)
    const found = await forEachFamily(netnsFd, async (iptables, family) => {
      const saved = parseSaved(await iptables.save(netnsFd, family))
      return {
        drift: TABLES.flatMap(table => tableDrift(ruleSet, family, table, saved.get(table))),
        bypasses: bypassesOf(family, saved),
      }
    })
    return {
      drift: [...found.flatMap(({ drift }) => drift), ...returnRoutesDrift(netnsFd)],
      bypasses: found.flatMap(({ bypasses }) => bypasses),
    }
  })
}

/** What the rules counted, both families together. Empty when there are none. Throws like `applyRedirect`. */
export function readCounters(podNetnsFd: number): Promise<Counters> {
  return inTurn(podNetnsFd, async netnsFd => {
    const counters: Counters = {}
    await forEachFamily(netnsFd, async (iptables, family) => {
      const saved = parseSaved(await iptables.save(netnsFd, family))
      for (const table of ['nat', 'filter'] as const)
        for (const chain of CHAINS[table])
          for (const { id, packets } of saved.get(table)?.get(chain)?.rules ?? [])
            if (id !== undefined && isCounter(id)) counters[id] = (counters[id] ?? 0n) + packets
    })
    return counters
  })
}

function isCounter(id: string): id is CounterName {
  return !/^(?:jump|pass|lock|end|return)\//.test(id)
}

async function program(netnsFd: number, ruleSet: RuleSet, order: readonly Table[]): Promise<void> {
  await forEachFamily(netnsFd, async (iptables, family) => {
    for (let attempt = 1; ; attempt++) {
      const saved = parseSaved(await iptables.save(netnsFd, family))
      const text = order.map(table => renderTable(ruleSet, family, table, saved.get(table))).join('')
      if (text === '') return
      try {
        return await iptables.restore(netnsFd, family, text)
      } catch (err) {
        if (attempt === ATTEMPTS) throw err
      }
    }
  })
}

/** The raw table comes before connection tracking: what it takes out of tracking is never redirected. */
function bypassesOf(family: Family, saved: SavedTables): string[] {
  return [...(saved.get('raw') ?? [])].flatMap(([chain, { rules }]) =>
    rules
      .filter(({ spec }) => /-j (?:NOTRACK|CT\b.*--notrack)/.test(spec))
      .slice(0, MAX_BYPASSES_NAMED)
      .map(({ spec }) => `IPv${family} raw: ${chain} takes packets out of connection tracking: ${spec}`),
  )
}

let detected: Promise<Iptables> | undefined

async function forEachFamily<T>(
  netnsFd: number,
  work: (iptables: Iptables, family: Family) => Promise<T>,
): Promise<T[]> {
  detected ??= Iptables.detect(netnsFd)
  const iptables = await detected.catch((err: unknown) => {
    detected = undefined // the next pod may be luckier: modules can be loaded meanwhile
    throw err
  })
  return Promise.all(familiesOf(netnsFd).map(family => work(iptables, family)))
}

/** The last call for each namespace, by inode. */
const turns = new Map<bigint, Promise<unknown>>()

/**
 * `work` gets a descriptor of its own: should the caller close its one meanwhile, the number could pass to the
 * namespace of another pod.
 */
async function inTurn<T>(callersFd: number, work: (netnsFd: number) => Promise<T>): Promise<T> {
  const inode = netnsInode(callersFd)
  const netnsFd = dupFd(callersFd)
  const before = turns.get(inode) ?? Promise.resolve()
  const mine = before.then(
    () => work(netnsFd),
    () => work(netnsFd),
  )
  turns.set(inode, mine)
  try {
    return await mine
  } finally {
    closeFd(netnsFd)
    if (turns.get(inode) === mine) turns.delete(inode)
  }
}
