/** Every arm, in the order in which reports show them. */
import type { ArmName } from '../model.ts'
import type { Arm, ArmOptions } from './arm.ts'
import { culvertArm } from './culvert.ts'
import { haproxyArm } from './haproxy.ts'
import { nginxArm } from './nginx.ts'
import { noneArm } from './none.ts'
import { ztunnelArm } from './ztunnel.ts'

/** The arms of these names. */
export function armsNamed(names: readonly ArmName[], options: ArmOptions): Arm[] {
  const all = [noneArm(), nginxArm(), haproxyArm(), ztunnelArm(options), culvertArm(options)]
  return all.filter(({ name }) => names.includes(name))
}
