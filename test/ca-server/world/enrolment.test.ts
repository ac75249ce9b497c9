import t from 'tap'
import { namespaceMessage } from '../../../ca-server/discovery/mesh-messages.ts'
import { enrolmentOf } from '../../../ca-server/world/enrolment.ts'
import { World } from '../../../ca-server/world/world.ts'
import { ENROLLED, kubeNamespace, kubePod } from '../../helpers/kube-world.ts'

const PERMISSIVE = { 'culvert.dev/mtls': 'permissive' }

function worldOf(strictByDefault: boolean): World {
  const world = new World({ strictByDefault })
  world.replaceAll([
    kubeNamespace('shop', ENROLLED),
    kubeNamespace('old', { ...ENROLLED, ...PERMISSIVE }),
    kubePod('says-nothing'),
    kubePod('says-permissive', { meta: { annotations: PERMISSIVE } }),
    kubePod('of-old', { namespace: 'old' }),
    kubePod('lost', { namespace: 'nowhere' }),
    kubePod('of-the-node', { hostNetwork: true }),
  ])
  return world
}

const strictOf = (world: World, key: string) => enrolmentOf(world, world.pod(key)!).strictInbound

await t.test('without a default, pods take plaintext until told not to', async t => {
  const world = worldOf(false)
  t.equal(strictOf(world, 'shop/says-nothing'), false)
  t.equal(namespaceMessage(world, world.namespace('shop')!).enrolment?.strictInbound, undefined)
})

await t.test('strict by default, an annotation of the pod or of its namespace still decides', async t => {
  const world = worldOf(true)
  t.equal(strictOf(world, 'shop/says-nothing'), true)
  t.equal(strictOf(world, 'shop/says-permissive'), false)
  t.equal(strictOf(world, 'old/of-old'), false)
  t.equal(
    namespaceMessage(world, world.namespace('shop')!).enrolment?.strictInbound,
    true,
    'as agents hear it',
  )
  t.equal(namespaceMessage(world, world.namespace('old')!).enrolment?.strictInbound, false)
})

await t.test('a default for plaintext brings nobody into the mesh', async t => {
  const world = worldOf(true)
  t.equal(enrolmentOf(world, world.pod('nowhere/lost')!).mesh, false)
  t.equal(enrolmentOf(world, world.pod('shop/of-the-node')!).mesh, false)
})
