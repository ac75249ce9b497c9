/** Pods that the steps make: they do one thing, and end. */
import { until } from '../../lab/demo/facts.ts'
import type { KubeJson, Kubectl } from './kubectl.ts'

/** A pod of the client's account whose first act is a request; it tries for 20 s at most. */
export function firstActPod(name: string, image: string, node: string, target: string): string {
  return `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: shop }
spec:
  serviceAccountName: client
  nodeName: ${node}
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
    - { name: app, image: '${image}', command: [node, test/cluster/get.ts, '${target}', '20000'] }
`
}

/** Runs such a pod to its end, and takes it away. Gives what it was and what it said. */
export async function runOnce(
  kubectl: Kubectl,
  name: string,
  image: string,
  node: string,
  target: string,
): Promise<{ readonly pod: KubeJson; readonly logs: string }> {
  await kubectl.apply(firstActPod(name, image, node, target))
  return await ended(kubectl, name)
}

/** Waits for the end of a pod in `shop`, and takes it away. */
export async function ended(
  kubectl: Kubectl,
  name: string,
  timeoutMs = 60_000,
): Promise<{ readonly pod: KubeJson; readonly logs: string }> {
  const pod = await until(`the end of pod ${name}`, timeoutMs, async () => {
    const found = await kubectl.get('pod', '-n', 'shop', name)
    return ['Succeeded', 'Failed'].includes(found.status.phase ?? '') ? found : undefined
  })
  const logs = await kubectl.logs(`shop/${name}`)
  await kubectl.ok(['-n', 'shop', 'delete', 'pod', name, '--now'])
  return { pod, logs }
}
