/**
 * `state.json` in a lab's run directory: which supervisor owns the lab and what it has started. It is the
 * lab's lock while the supervisor lives, and what the next `up` or `down` cleans by when it does not.
 */
import { linkSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { CulvertError, errorCode } from '../lib/errors.ts'
import { readIfThere, replaceFile } from './files.ts'
import type { LabPaths } from './names.ts'
import { isAlive, namespaceInode, processRef, type ProcessRef } from './processes.ts'

export interface LabState {
  readonly name: string
  readonly supervisor: ProcessRef
  /** The lab runs in a user namespace of its own; its inode number. Absent when root started it. */
  readonly userNamespace?: number
  /** What the supervisor started, by what it is: `ca-server`, `agent-node-a`, `shop/client app`. */
  readonly processes: Readonly<Record<string, ProcessRef>>
}

/** What the run directory says, or undefined when there is nothing readable. */
export function readState(paths: LabPaths): LabState | undefined {
  const text = readIfThere(paths.state)
  if (text === undefined) return undefined
  try {
    const state = JSON.parse(text) as LabState
    return typeof state.supervisor?.pid === 'number' ? state : undefined
  } catch {
    return undefined // cut short by a crash: the namespaces' names still tell what to clean
  }
}

/** Reports whether the lab's supervisor lives. */
export function isUp(state: LabState | undefined): state is LabState {
  return state !== undefined && isAlive(state.supervisor)
}

/** Makes the run directory and takes the lab for this process. Throws `LAB` when another has it. */
export function takeLab(paths: LabPaths, name: string, isRootless: boolean): LabState {
  makePrivateDir(dirname(paths.run))
  makePrivateDir(paths.run)
  const userNamespace = isRootless ? namespaceInode('self', 'user') : undefined
  const state: LabState = {
    name,
    supervisor: processRef(process.pid)!,
    ...(userNamespace === undefined ? {} : { userNamespace }),
    processes: {},
  }
  const temporary = `${paths.state}.${process.pid}`
  writeFileSync(temporary, JSON.stringify(state))
  try {
    linkSync(temporary, paths.state) // fails when it exists: only one of two can take the lab
  } catch (err) {
    throw errorCode(err) === 'EEXIST' ? alreadyUp(name) : err
  } finally {
    rmSync(temporary, { force: true })
  }
  return state
}

export function writeState(paths: LabPaths, state: LabState): void {
  replaceFile(paths.state, JSON.stringify(state, undefined, 2))
}

export function alreadyUp(name: string): CulvertError {
  const suffix = name === 'default' ? '' : ` --name ${name}`
  return new CulvertError('LAB', `lab '${name}' is already up`, {
    hint: `look at it with 'culvert lab status${suffix}', end it with 'culvert lab down${suffix}'`,
  })
}

/** Only its owner may look into a run directory: tokens are in there. */
function makePrivateDir(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 })
  // Below /tmp anyone could have made it first.
  const { uid } = statSync(path)
  if (uid !== process.getuid?.())
    throw new CulvertError('DENIED', `${path} belongs to another user (${uid})`, {
      hint: `remove it, or set TMPDIR to a directory of your own`,
    })
}
