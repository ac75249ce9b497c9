import * as fc from 'fast-check'
import t from 'tap'
import { cgroupOf, podUidOfCgroup, podUidOfProcess } from '../../../agent/pods/cgroup.ts'

const UID = '65a1e2cd-a0a8-44cc-9cc6-2e09a2b9a64e'
const SLICE = UID.replaceAll('-', '_')
const CONTAINER = '75337f20a3d94370a16fc3fc52aa049a09c89a13eaefff661ab4c4ae5610b5b3'

await t.test('what kubelets and container runtimes write is understood', async t => {
  for (const [path, uid] of [
    [`/kubepods/besteffort/pod${UID}/${CONTAINER}`, UID],
    [`/kubepods/pod${UID}/${CONTAINER}`, UID],
    [`/kubepods/burstable/pod${UID}`, UID],
    [`/kubelet/kubepods/burstable/pod${UID}/crio-${CONTAINER}`, UID],
    [
      `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${SLICE}.slice/cri-containerd-${CONTAINER}.scope`,
      UID,
    ],
    [`/kubepods.slice/kubepods-pod${SLICE}.slice/crio-${CONTAINER}.scope/container`, UID],
    [
      `/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod${SLICE}.slice/cri-containerd-${CONTAINER}.scope`,
      UID,
    ],
    // As seen from a control-group namespace beside it.
    [`/../../pod${UID}/${CONTAINER}`, UID],
    [`/../../kubepods-burstable-pod${SLICE}.slice/cri-containerd-${CONTAINER}.scope`, UID],
    ['/kubepods/burstable/pod0123456789abcdef0123456789abcdef/x', '0123456789abcdef0123456789abcdef'],
    ['/', undefined],
    ['/../cri-containerd-0.scope', undefined],
    ['/system.slice/containerd.service', undefined],
    [`/user.slice/pod${UID}x`, undefined],
    [`/kubepods/xpod${UID}`, undefined],
    [`/kubepods/pod${UID.toUpperCase()}`, undefined],
    [`/kubepods/kubepods-pod${UID.replace('-', '_')}.slice`, undefined],
    ['/machine.slice/libpod-0123456789abcdef0123456789abcdef.scope', undefined],
  ] as const)
    t.equal(podUidOfCgroup(path), uid, path)
})

await t.test(
  'the outermost pod counts: what a container makes below its own group proves nothing',
  async t => {
    const other = UID.replace('6', '7')
    t.equal(podUidOfCgroup(`/kubepods/pod${UID}/${CONTAINER}/kubepods/pod${other}/x`), UID)
  },
)

await t.test('a process that names two pods is believed about neither', async t => {
  const other = UID.replace('6', '7')
  t.equal(podUidOfProcess(`2:pids:/kubepods/pod${UID}/x\n1:cpu:/kubepods/pod${other}/x\n`), undefined)
  t.equal(podUidOfProcess(`2:pids:/kubepods/pod${UID}/x\n1:cpu:/\n0::/\n`), UID)
})

const digits = (length: number) => fc.stringMatching(new RegExp(`^[0-9a-f]{${length}}$`))
const uids = fc.tuple(digits(8), digits(4), digits(4), digits(4), digits(12)).map(parts => parts.join('-'))
const qos = fc.constantFrom('', 'burstable', 'besteffort')
const roots = fc.constantFrom('', 'kubelet', 'custom-root')

/** A path as the kubelet's own driver names it, and one as systemd does. */
const paths = fc.record({ uid: uids, qos, root: roots, systemd: fc.boolean(), id: digits(64) })
function pathOf({ uid, qos, root, systemd, id }: typeof paths extends fc.Arbitrary<infer T> ? T : never) {
  if (!systemd) return `/${[root, 'kubepods', qos, `pod${uid}`, id].filter(part => part !== '').join('/')}`
  const names = [root, 'kubepods', qos].filter(part => part !== '')
  const slices = names.map((_, at) => `${names.slice(0, at + 1).join('-')}.slice`)
  const pod = `${names.join('-')}-pod${uid.replaceAll('-', '_')}.slice`
  return `/${[...slices, pod, `cri-containerd-${id}.scope`].join('/')}`
}

await t.test('whatever the driver, the version and the hierarchies, the uid is found', async () => {
  const hierarchies = fc.array(fc.constantFrom('pids', 'cpu,cpuacct', 'name=systemd', 'memory'), {
    maxLength: 8,
  })
  fc.assert(
    fc.property(paths, hierarchies, fc.boolean(), (from, controllers, isUnified) => {
      const path = pathOf(from)
      const lines = isUnified
        ? [`0::${path}`]
        : ['0::/', ...controllers.map((name, at) => `${at + 1}:${name}:${path}`)]
      const found = podUidOfProcess(`${lines.join('\n')}\n`)
      return found === (isUnified || controllers.length > 0 ? from.uid : undefined)
    }),
  )
})

await t.test('any text is read without failure, and gives nothing but a uid', async () => {
  const texts = fc.oneof(
    fc.string(),
    fc
      .array(fc.oneof(paths.map(pathOf), fc.string(), fc.constantFrom('0::', '1:pids:', '\n', '/', '..')))
      .map(parts => parts.join('')),
  )
  fc.assert(
    fc.property(texts, text => {
      const found = podUidOfProcess(text)
      return found === undefined || (/^[0-9a-f-]{32,36}$/.test(found) && text.includes(found.slice(0, 8)))
    }),
    { numRuns: 1000 },
  )
})

await t.test('a process that is not there has no groups', async t => {
  t.equal(cgroupOf(0x7fff_fffe), undefined)
  t.match(cgroupOf('self'), /^\d+:/)
})
