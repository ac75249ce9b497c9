/**
 * Programs, takes away, inspects and counts the redirection of one pod's namespace. Everything may be repeated:
 * what is already as it should be is not touched, and keeps its counters. Two calls for one namespace never
 * overlap, whoever makes them.
 *
 * Where the kernel can be asked for the rules directly (nf_tables), a program runs only to change them, and to list those
 * that are met for the first time: what it said of them is remembered by their fingerprint.
 */
import { closeFd, dupFd } from '../sys/fd.ts'
import { inNetns, netnsInode } from '../sys/netns.ts'
import { readNftables, type NftState } from '../sys/nftables.ts'
import type { Counters, CounterName } from './counters.ts'
import { Iptables } from './iptables.ts'
import { Memory, type Changes } from './memory.ts'
import { renderTable, tableDrift } from './plan.ts'
import { addReturnRoutes, familiesOf, removeReturnRoutes, returnRoutesDrift } from './return-path.ts'
import { CHAINS, COMMENT_PREFIX, TABLES, type Family, type RuleSet, type Table } from './rule.ts'
import { describeRules } from './rules.ts'
import { parseSaved, type SavedTables } from './saved.ts'
import { normalSettings, type RedirectSettings } from './settings.ts'
import { Slots } from './slots.ts'

/** Somebody else may change the tables between reading and writing them; then both are done again. */
const ATTEMPTS = 3

const MAX_BYPASSES_NAMED = 5

const NOTHING: RuleSet = { rules: [], policies: [] }

const memory = new Memory()
const slots = new Slots()

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
    await program(netnsFd, await rulesFor(netnsFd, settings), TABLES, nameOf(settings))
  })
}

/**
 * Takes the rules and the routing away. Connections that were redirected live on only with `keepReturnPath`.
 * Nothing of ours being there is fine. Throws like `applyRedirect`.
 */
export function removeRedirect(podNetnsFd: number, options: RemoveOptions = {}): Promise<void> {
  return inTurn(podNetnsFd, async netnsFd => {
    // The lock before the capture, or what is no longer captured would be dropped.
    await program(netnsFd, NOTHING, ['filter', 'nat'], 'nothing captured')
    if (!options.keepReturnPath) await dropReturnPath(netnsFd)
  })
}

/** Takes the rest away that `keepReturnPath` left. Throws like `applyRedirect`. */
export function removeReturnPath(podNetnsFd: number): Promise<void> {
  return inTurn(podNetnsFd, netnsFd => dropReturnPath(netnsFd))
}

async function dropReturnPath(netnsFd: number): Promise<void> {
  await program(netnsFd, NOTHING, ['mangle', 'raw'], 'no return path')
  removeReturnRoutes(netnsFd)
}

/** What should stand in the namespace: the rules depend on what this machine's kernel can do. Throws like `applyRedirect`. */
export async function rulesFor(netnsFd: number, settings: RedirectSettings): Promise<RuleSet> {
  return describeRules(settings, await backend(netnsFd))
}

/** Compares the namespace with what the settings ask for. Throws like `applyRedirect`. */
export function inspectRedirect(podNetnsFd: number, settings: RedirectSettings): Promise<Inspection> {
  const wanted = nameOf(settings)
  return inTurn(podNetnsFd, async netnsFd => {
    const iptables = await backend(netnsFd)
    const rules = isClean(iptables, netnsFd, wanted)
      ? CLEAN
      : await listed(iptables, netnsFd, settings, wanted)
    return { ...rules, drift: [...rules.drift, ...returnRoutesDrift(netnsFd)] }
  })
}

const CLEAN: Inspection = { drift: [], bypasses: [] }

function isClean(iptables: Iptables, netnsFd: number, wanted: string): boolean {
  const state = stateOf(iptables, netnsFd)
  return state !== undefined && memory.isClean(state.fingerprint, wanted)
}

/** What the rules are, by programs that list them. */
function listed(
  iptables: Iptables,
  netnsFd: number,
  settings: RedirectSettings,
  wanted: string,
): Promise<Inspection> {
  return slots.run('look', async () => {
    const before = stateOf(iptables, netnsFd)
    // Another pod's rules may have been the same, and may have been listed while these waited for it.
    if (before && memory.isClean(before.fingerprint, wanted)) return CLEAN
    const ruleSet = describeRules(settings, iptables)
    const found = await forEachFamily(netnsFd, async family => {
      const saved = parseSaved(await iptables.save(netnsFd, family))
      return {
        drift: TABLES.flatMap(table => tableDrift(ruleSet, family, table, saved.get(table))),
        bypasses: bypassesOf(family, saved),
      }
    })
    const inspection = {
      drift: found.flatMap(({ drift }) => drift),
      bypasses: found.flatMap(({ bypasses }) => bypasses),
    }
    const isInOrder = inspection.drift.length + inspection.bypasses.length === 0
    if (before && isInOrder && stateOf(iptables, netnsFd)?.fingerprint === before.fingerprint)
      memory.keepClean(before.fingerprint, wanted)
    return inspection
  })
}

/** What the rules counted, both families together. Empty when there are none. Throws like `applyRedirect`. */
export function readCounters(podNetnsFd: number): Promise<Counters> {
  return inTurn(podNetnsFd, async netnsFd => {
    const iptables = await backend(netnsFd)
    const state = stateOf(iptables, netnsFd)
    const counters: Counters = {}
    const add = (id: string | undefined, packets: bigint) => {
      if (id !== undefined && isCounter(id)) counters[id] = (counters[id] ?? 0n) + packets
    }
    if (state) {
      for (const { table, chain, comment, packets } of state.counted)
        if (
          table !== 'mangle' &&
          CHAINS[table as Table]?.includes(chain) &&
          comment.startsWith(COMMENT_PREFIX)
        )
          add(comment.slice(COMMENT_PREFIX.length), packets)
      return counters
    }
    const saved = await slots.run('look', () =>
      forEachFamily(netnsFd, async family => parseSaved(await iptables.save(netnsFd, family))),
    )
    for (const tables of saved)
      for (const table of ['nat', 'filter'] as const)
        for (const chain of CHAINS[table])
          for (const { id, packets } of tables.get(table)?.get(chain)?.rules ?? []) add(id, packets)
    return counters
  })
}

function isCounter(id: string): id is CounterName {
  return !/^(?:jump|pass|lock|end|return)\//.test(id)
}

/** `wanted` names rules and order, for the memory. */
async function program(
  netnsFd: number,
  ruleSet: RuleSet,
  order: readonly Table[],
  wanted: string,
): Promise<void> {
  const iptables = await backend(netnsFd)
  await slots.run('write', async () => {
    for (let attempt = 1; ; attempt++) {
      const changes = await changesTo(iptables, netnsFd, ruleSet, order, wanted)
      try {
        await forEachFamily(netnsFd, async family => {
          const text = changes.get(family)
          if (text) await iptables.restore(netnsFd, family, text)
        })
        return
      } catch (err) {
        if (attempt === ATTEMPTS) throw err
      }
    }
  })
}

async function changesTo(
  iptables: Iptables,
  netnsFd: number,
  ruleSet: RuleSet,
  order: readonly Table[],
  wanted: string,
): Promise<Changes> {
  const before = stateOf(iptables, netnsFd)
  const known = before && memory.changes(before.fingerprint, wanted)
  if (known) return known
  const changes = new Map<Family, string>()
  await forEachFamily(netnsFd, async family => {
    const saved = parseSaved(await iptables.save(netnsFd, family))
    changes.set(family, order.map(table => renderTable(ruleSet, family, table, saved.get(table))).join(''))
  })
  if (before && stateOf(iptables, netnsFd)?.fingerprint === before.fingerprint)
    memory.keepChanges(before.fingerprint, wanted, changes)
  return changes
}

/** The same text for the same settings. */
function nameOf(settings: RedirectSettings): string {
  return JSON.stringify(normalSettings(settings))
}

/** What the kernel says of the namespace's rules; undefined where it has to be asked by a program. Throws `SYSCALL`. */
function stateOf(iptables: Iptables, netnsFd: number): NftState | undefined {
  if (iptables.variant !== 'nft') return undefined
  const state = inNetns(netnsFd, () => readNftables())
  // A namespace may have IPv6 or not, and only with it has it rules for it.
  return state && { ...state, fingerprint: `${familiesOf(netnsFd).length} ${state.fingerprint}` }
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

async function backend(netnsFd: number): Promise<Iptables> {
  detected ??= Iptables.detect(netnsFd)
  return detected.catch((err: unknown) => {
    detected = undefined // the next pod may be luckier: modules can be loaded meanwhile
    throw err
  })
}

/** Both at once; when one fails the other has ended, too, before it throws. */
async function forEachFamily<T>(netnsFd: number, work: (family: Family) => Promise<T>): Promise<T[]> {
  const running = familiesOf(netnsFd).map(work)
  await Promise.allSettled(running)
  return Promise.all(running)
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
