/** What Kubernetes does with pods and Services all day long, done to pods in the mesh. */
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../../lab/demo/facts.ts'
import { expect } from '../../../lab/demo/narrator.ts'
import { errorText } from '../../../lib/errors.ts'
import { isReady, lifeOf, observed, SYSTEM } from '../agents.ts'
import { startLoad } from '../clients.ts'
import { CLIENT, httpGet, loggedBy, OLD, podNamed, podsOf, serverOn, url } from '../context.ts'
import { ipOf } from '../eyes.ts'
import type { Kubectl } from '../kubectl.ts'
import type { Step } from './enrolment.ts'

const RATE = 50
const A_WHILE_MS = 1000

export const kubernetesSteps: Step[] = [
  [
    'a Deployment is rolled out anew under load, through its Service: no connection fails',
    async ({ kubectl }) => {
      const load = await startLoad(kubectl, CLIENT, 'http://server.shop/', RATE)
      await sleep(A_WHILE_MS)
      await kubectl.ok(['-n', 'shop', 'rollout', 'restart', 'deploy/server'])
      await kubectl.ok(['-n', 'shop', 'rollout', 'status', 'deploy/server', '--timeout=120s'])
      await until('only new pods', 30_000, async () => {
        const servers = (await kubectl.list('pods', '-n', 'shop', '-l', 'app=server')).length
        return servers === 2 || undefined
      })
      await sleep(A_WHILE_MS)
      const { requests, failures, pods } = await load.stop()
      expect(failures.length === 0, `${failures.length} of ${requests} failed: ${failures[0]?.error}`)
      return `${requests} new connections, 0 failed, answered by ${Object.keys(pods).length} pods`
    },
  ],
  [
    'a container is restarted in its pod: the pod stays in the mesh, and is served at once',
    async ({ kubectl, nodes }) => {
      const far = await serverOn(kubectl, nodes.far)
      await kubectl.exec(`shop/${far.metadata.name}`, ['node', '-e', 'process.kill(1, "SIGTERM")'])
      const after = await until('its restart', 30_000, async () => {
        const pod = await podNamed(kubectl, `shop/${far.metadata.name}`)
        return isReady(pod) && lifeOf(pod) !== lifeOf(far) ? pod : undefined
      })
      expect(ipOf(after) === ipOf(far), 'it has another address')
      await httpGet(kubectl, CLIENT, url(after))
      return lifeOf(after)
    },
  ],
  [
    'an init container’s first act is carried, and a Job runs to its end',
    async ({ kubectl, nodes, image }) => {
      const far = await serverOn(kubectl, nodes.far)
      await kubectl.apply(job('first-job', image, nodes.near, url(far)))
      await kubectl.ok(['-n', 'shop', 'wait', '--for=condition=complete', 'job/first-job', '--timeout=60s'])
      const logs = async (container: string) =>
        await kubectl.ok(['-n', 'shop', 'logs', 'job/first-job', '-c', container])
      const [init, main] = [await logs('init'), await logs('main')]
      expect(init.includes('"ok":true') && main.includes('"ok":true'), `init: ${init}main: ${main}`)
      await loggedBy(
        kubectl,
        nodes.far,
        'its connections as mtls',
        entry => String(entry['src.workload']).startsWith('first-job') && entry['reason'] === 'mtls',
      )
      await kubectl.ok(['-n', 'shop', 'delete', 'job', 'first-job', '--cascade=foreground'])
      return 'both were answered, under mtls'
    },
  ],
  [
    'pods of a StatefulSet are reached by their names',
    async ({ kubectl, image }) => {
      await kubectl.apply(statefulSet('db', image))
      await kubectl.ok(['-n', 'shop', 'rollout', 'status', 'statefulset/db', '--timeout=60s'])
      const told: string[] = []
      for (const name of ['db-0', 'db-1']) {
        // The cluster's DNS hears of it a moment later, and keeps what it has answered before for some seconds.
        const seen = await until(`the name ${name}.db`, 60_000, async () => {
          try {
            return await httpGet(kubectl, CLIENT, `http://${name}.db.shop:8080/`)
          } catch (err) {
            if (errorText(err).includes('ENOTFOUND')) return undefined
            throw err
          }
        })
        expect(seen.pod === name, `${name}.db answered as ${seen.pod}`)
        told.push(`${name}: ${seen.client}`)
      }
      await kubectl.ok(['-n', 'shop', 'delete', 'statefulset,service', 'db', '--cascade=foreground'])
      return told.join(', ')
    },
  ],
  [
    'a pod in the mesh reaches the API server with its service account, and is reached by the API server’s proxy',
    async ({ kubectl }) => {
      const ask = `
        const { readFileSync } = require('fs'), dir = '/var/run/secrets/kubernetes.io/serviceaccount/'
        require('https').get('https://kubernetes.default.svc/version', {
          ca: readFileSync(dir + 'ca.crt'), headers: { authorization: 'Bearer ' + readFileSync(dir + 'token') } },
          answer => answer.pipe(process.stdout)).on('error', err => { console.error(err.message); process.exit(1) })`
      const ran = await kubectl.exec(CLIENT, ['node', '-e', ask])
      expect(ran.stdout.toString().includes('gitVersion'), `it got: ${ran.stdout.toString()}${ran.stderr}`)
      const proxied = await kubectl.ok([
        'get',
        '--raw',
        '/api/v1/namespaces/shop/services/server:http/proxy/',
      ])
      expect(proxied.includes('"pod"'), `the API server got: ${proxied}`)
      return 'both answered'
    },
  ],
  [
    'NodePort traffic from outside comes in, with the address that Kubernetes gives it',
    async ({ kubectl, eyes, nodes }) => {
      const told: string[] = []
      for (const policy of ['Cluster', 'Local'] as const) {
        await kubectl.apply(nodePort(policy))
        const { spec } = (await kubectl.get(
          'service',
          '-n',
          'shop',
          `outside-${policy.toLowerCase()}`,
        )) as unknown as {
          spec: { ports: { nodePort: number }[] }
        }
        const address = await addressOf(kubectl, nodes.far)
        const target = `http://${address}:${spec.ports[0]!.nodePort}/`
        const seen = await until(`an answer on ${target}`, 10_000, async () => {
          const ran = await eyes.onNode(nodes.near, ['node', 'test/cluster/get.ts', target])
          const got = JSON.parse(ran.stdout.toString()) as {
            ok: boolean
            seen?: { client: string; pod: string }
          }
          return got.ok ? got.seen : undefined
        })
        const own = await addressOf(kubectl, nodes.near)
        if (policy === 'Local')
          expect(seen.client.startsWith(`${own}:`), `Local: it saw ${seen.client}, not ${own}`)
        told.push(`${policy}: ${seen.client}`)
        await kubectl.ok(['-n', 'shop', 'delete', 'service', `outside-${policy.toLowerCase()}`])
      }
      return told.join('; ')
    },
  ],
  [
    'a LoadBalancer’s address leads pods in the mesh through the tunnel',
    async ({ kubectl, nodes }) => {
      await kubectl.apply(loadBalancer('198.51.100.7'))
      await kubectl.ok([
        '-n',
        'shop',
        'patch',
        'service',
        'balanced',
        '--subresource=status',
        '--type=merge',
        '-p',
        JSON.stringify({ status: { loadBalancer: { ingress: [{ ip: '198.51.100.7', ipMode: 'VIP' }] } } }),
      ])
      const seen = await until('an answer', 10_000, async () =>
        httpGet(kubectl, CLIENT, 'http://198.51.100.7/').catch(() => undefined),
      )
      const line = await loggedBy(kubectl, nodes.near, 'its line', entry =>
        JSON.stringify(entry['dst.service'] ?? '').includes('balanced'),
      )
      await kubectl.ok(['-n', 'shop', 'delete', 'service', 'balanced'])
      return `${seen.pod} saw ${seen.client}; reason ${String(line['reason'])}`
    },
  ],
  [
    'a host-network pod in the namespace is left alone',
    async ({ kubectl, nodes, image }) => {
      await kubectl.apply(`
apiVersion: v1
kind: Pod
metadata: { name: on-the-host, namespace: shop }
spec:
  nodeName: ${nodes.near}
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  containers: [{ name: app, image: '${image}', command: [node, -e, 'setInterval(() => undefined, 1e9)'] }]
`)
      await kubectl.ok(['-n', 'shop', 'wait', '--for=condition=Ready', 'pod/on-the-host', '--timeout=60s'])
      const pod = await podNamed(kubectl, 'shop/on-the-host')
      expect(observed(pod) !== 'enrolled', 'it is said to be enrolled')
      await kubectl.ok(['-n', 'shop', 'delete', 'pod', 'on-the-host', '--now'])
      return ''
    },
  ],
  [
    'the container runtime is restarted: connections go on, and the next new pod is captured before it runs',
    async ({ kubectl, cluster, nodes, image }) => {
      if (!cluster.onNode) return 'not done: there is no way to this cluster’s nodes'
      const far = await serverOn(kubectl, nodes.far)
      // Its client is on the other node: what kubectl started there ends with the runtime.
      const load = await startLoad(kubectl, CLIENT, url(far), RATE)
      const before = await cluster.onNode(nodes.far, ['cat', '/run/containerd.pid'])
      await cluster.onNode(nodes.far, ['kill', '-9', before.trim()])
      await until('the runtime', 30_000, async () => {
        const now = await cluster.onNode!(nodes.far, ['cat', '/run/containerd.pid']).catch(() => before)
        return now !== before || undefined
      })
      await until('the agent’s word that it is connected again', 30_000, async () => {
        const pods = await kubectl.list('pods', '-n', SYSTEM, '-l', 'app.kubernetes.io/name=culvert-agent')
        return pods.every(isReady) || undefined
      })
      await sleep(3 * A_WHILE_MS)
      await kubectl.apply(job('after-restart', image, nodes.far, url(far)))
      await kubectl.ok([
        '-n',
        'shop',
        'wait',
        '--for=condition=complete',
        'job/after-restart',
        '--timeout=90s',
      ])
      await loggedBy(
        kubectl,
        nodes.far,
        'its connections as mtls',
        entry => String(entry['src.workload']).startsWith('after-restart') && entry['reason'] === 'mtls',
      )
      const { requests, failures } = await load.stop()
      expect(failures.length === 0, `${failures.length} of ${requests} failed: ${failures[0]?.error}`)
      await kubectl.ok(['-n', 'shop', 'delete', 'job', 'after-restart', '--cascade=foreground'])
      return `${requests} new connections meanwhile, 0 failed`
    },
  ],
  [
    'a pod is deleted and made anew under the same name: nobody reaches the new one as the old one',
    async ({ kubectl, nodes, image }) => {
      const pod = (name: string) => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: shop }
spec:
  serviceAccountName: server
  nodeName: ${nodes.far}
  terminationGracePeriodSeconds: 1
  containers:
    - name: app
      image: '${image}'
      command: [node, lab/app/main.ts]
      env: [{ name: POD_NAME, value: ${name} }]
      readinessProbe: { httpGet: { port: 8080, path: / }, periodSeconds: 1 }
`
      const told: string[] = []
      for (let life = 0; life < 2; life++) {
        await kubectl.apply(pod('again'))
        await kubectl.ok(['-n', 'shop', 'wait', '--for=condition=Ready', 'pod/again', '--timeout=60s'])
        const now = await podNamed(kubectl, 'shop/again')
        const seen = await httpGet(kubectl, CLIENT, url(now))
        told.push(`${now.metadata.uid} at ${ipOf(now)} as ${seen.pod}`)
        await kubectl.ok(['-n', 'shop', 'delete', 'pod', 'again', '--timeout=60s'])
      }
      expect((await podsOf(kubectl, 'shop')).length > 0, 'everything has gone')
      await httpGet(kubectl, OLD, url(await serverOn(kubectl, nodes.far)))
      return told.join('\n')
    },
  ],
]

async function addressOf(kubectl: Kubectl, node: string): Promise<string> {
  const { status } = (await kubectl.get('node', node)) as unknown as {
    status: { addresses: { type: string; address: string }[] }
  }
  return status.addresses.find(({ type }) => type === 'InternalIP')?.address ?? ''
}

function job(name: string, image: string, node: string, target: string): string {
  const container = (called: string) =>
    `{ name: ${called}, image: '${image}', command: [node, test/cluster/get.ts, '${target}', '20000'] }`
  return `
apiVersion: batch/v1
kind: Job
metadata: { name: ${name}, namespace: shop }
spec:
  backoffLimit: 0
  template:
    spec:
      serviceAccountName: client
      nodeName: ${node}
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      initContainers: [${container('init')}]
      containers: [${container('main')}]
`
}

function statefulSet(name: string, image: string): string {
  return `
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: shop }
spec: { clusterIP: None, selector: { app: ${name} }, ports: [{ port: 8080 }] }
---
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: ${name}, namespace: shop }
spec:
  serviceName: ${name}
  replicas: 2
  podManagementPolicy: Parallel
  selector: { matchLabels: { app: ${name} } }
  template:
    metadata: { labels: { app: ${name} } }
    spec:
      serviceAccountName: server
      terminationGracePeriodSeconds: 1
      containers:
        - name: app
          image: '${image}'
          command: [node, lab/app/main.ts]
          env: [{ name: POD_NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }]
          readinessProbe: { httpGet: { port: 8080, path: / }, periodSeconds: 1 }
`
}

function nodePort(policy: 'Cluster' | 'Local'): string {
  return `
apiVersion: v1
kind: Service
metadata: { name: outside-${policy.toLowerCase()}, namespace: shop }
spec:
  type: NodePort
  externalTrafficPolicy: ${policy}
  selector: { app: server }
  ports: [{ port: 80, targetPort: http }]
`
}

function loadBalancer(ip: string): string {
  return `
apiVersion: v1
kind: Service
metadata: { name: balanced, namespace: shop, annotations: { example.com/ip: '${ip}' } }
spec:
  type: LoadBalancer
  selector: { app: server }
  ports: [{ name: http, port: 80, targetPort: http }]
`
}
