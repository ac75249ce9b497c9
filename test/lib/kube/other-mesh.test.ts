import t from 'tap'
import { otherMeshOf, type MarkedPod } from '../../../lib/kube/other-mesh.ts'

const AMBIENT = "pod is in Istio's ambient mesh: left alone"
const SIDECAR = 'pod has an Istio proxy: left alone'
const LINKERD = 'pod has a Linkerd proxy: left alone'
const ambient = (mode: string) => ({ labels: { 'istio.io/dataplane-mode': mode } })

await t.test('a pod is known for another mesh’s by what that has done to it', t => {
  const cases: [string, MarkedPod, string | undefined][] = [
    ['nothing', {}, undefined],
    ['captured by Istio’s agent', { annotations: { 'ambient.istio.io/redirection': 'enabled' } }, AMBIENT],
    ['let go by it', { annotations: { 'ambient.istio.io/redirection': 'disabled' } }, undefined],
    ['labelled for it', ambient('ambient'), AMBIENT],
    ['injected by Istio', { annotations: { 'sidecar.istio.io/status': '{}' } }, SIDECAR],
    ['with Istio’s container', { meshProxy: 'istio-proxy' }, SIDECAR],
    ['injected by Linkerd', { annotations: { 'linkerd.io/proxy-version': 'edge-1' } }, LINKERD],
    ['with Linkerd’s container', { meshProxy: 'linkerd-proxy' }, LINKERD],
    ['asked for only', { annotations: { 'linkerd.io/inject': 'enabled' } }, undefined],
  ]
  for (const [what, pod, text] of cases) t.equal(otherMeshOf(pod), text, what)
  t.end()
})

await t.test('of a namespace the ambient label counts, unless the pod has its own', t => {
  t.equal(otherMeshOf({}, ambient('ambient')), AMBIENT)
  t.equal(otherMeshOf(ambient('none'), ambient('ambient')), undefined)
  t.equal(otherMeshOf({}, { labels: { 'istio-injection': 'enabled' } }), undefined, 'its pods may be without')
  t.end()
})
