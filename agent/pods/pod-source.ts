/** The pod source that the settings name. */
import type { Logger } from '../../lib/log.ts'
import type { Mesh } from '../mesh/mesh.ts'
import { AutoPodSource } from './auto.ts'
import { NriPodSource } from './nri/source.ts'
import { ProcPodSource } from './proc/source.ts'
import type { PodSource, PodSourceChoice, Safety } from './source.ts'
import { StaticPodSource } from './static.ts'

export interface PodSourceParts {
  readonly mesh: Mesh
  readonly log: Logger
  /** A pod was kept from starting for so long, milliseconds. */
  readonly onHeld: (heldMs: number, safety: Safety) => void
}

export function podSourceFrom(choice: PodSourceChoice, { mesh, log, onHeld }: PodSourceParts): PodSource {
  if (choice.kind === 'static') return new StaticPodSource({ file: choice.file, log })
  if (choice.kind === 'proc') return new ProcPodSource({ mesh, log })
  const nri = { socket: choice.socket, log, onHeld }
  return choice.kind === 'nri' ? new NriPodSource(nri) : new AutoPodSource({ nri, proc: { mesh, log }, log })
}
