/** Finding labs and pods by the names that people type, and saying what there is when it is not found. */
import { readdirSync } from 'node:fs'
import { CulvertError, errorCode } from '../../lib/errors.ts'
import { labPaths, labsDir } from '../names.ts'
import { isUp, readState } from '../state.ts'
import type { PodPlace } from '../status.ts'

/** The names of this user's labs that are up. */
export function labsUp(): string[] {
  try {
    return readdirSync(labsDir()).filter(name => /^[a-z0-9_]+$/.test(name) && isUp(readState(labPaths(name))))
  } catch (err) {
    if (errorCode(err) === 'ENOENT') return []
    throw err
  }
}

export function noSuchLab(name: string, wasLeft: boolean): CulvertError {
  const others = labsUp()
  const suffix = name === 'default' ? '' : ` --name ${name}`
  const hint = wasLeft
    ? `it has ended without cleaning up: 'culvert lab down${suffix}' does that, 'culvert lab up${suffix}' starts anew`
    : others.length > 0
      ? `these are up: ${others.join(', ')} (choose with --name)`
      : `start it with 'culvert lab up${suffix}'`
  return new CulvertError('LAB', `lab '${name}' is not up`, { hint })
}

/** The pod meant by `name` or `namespace/name`. Throws `LAB` when there is none, or more than one. */
export function podOf<T extends PodPlace>(lab: string, pods: readonly T[], wanted: string): T {
  const found = pods.filter(({ namespace, name }) => name === wanted || `${namespace}/${name}` === wanted)
  if (found.length === 1) return found[0]!
  const names = (found.length > 1 ? found : pods).map(({ namespace, name }) => `${namespace}/${name}`)
  throw new CulvertError(
    'LAB',
    found.length > 1 ? `more than one pod is called '${wanted}'` : `lab '${lab}' has no pod '${wanted}'`,
    {
      hint:
        names.length > 0
          ? `${found.length > 1 ? 'say which:' : 'it has'} ${names.join(', ')}`
          : 'it has no pods',
    },
  )
}
