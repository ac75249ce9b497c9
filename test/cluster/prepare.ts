/** Everything that is there before Culvert is: images on the nodes, a way to look at them, and applications. */
import { readFile } from 'node:fs/promises'
import { CulvertError } from '../../lib/errors.ts'
import { SYSTEM } from './agents.ts'
import { Eyes } from './eyes.ts'
import { testImages } from './images.ts'
import type { Kubectl } from './kubectl.ts'
import type { Cluster } from './local.ts'

export interface Prepared {
  readonly cluster: Cluster
  readonly kubectl: Kubectl
  readonly eyes: Eyes
  /** `near` has the client, `far` the server that is called across. */
  readonly nodes: { readonly near: string; readonly far: string }
  /** Of the applications. */
  readonly image: string
  /** Plain manifests of the whole installation, image filled in. */
  readonly manifests: string
  /** Of the images, for whoever reads along. */
  readonly told: string
  /** Applies the manifests; resolves when everything is ready. */
  readonly install: () => Promise<void>
}

/** Brings images to the nodes, and starts what the tests look at nodes with. Throws `KUBERNETES` or `CONFIG`. */
export async function prepare(
  cluster: Cluster,
  named: { readonly image: string | undefined; readonly appImage: string | undefined },
): Promise<Prepared> {
  const { kubectl } = cluster
  const [near, far] = (await kubectl.list('nodes')).map(({ metadata }) => metadata.name)
  if (near === undefined || far === undefined)
    throw new CulvertError('KUBERNETES', 'the cluster has fewer than two nodes')
  const { app, manifests, told } = await testImages(cluster, named)
  await kubectl.apply(await filled('eyes.yaml', { APP_IMAGE: app }))
  await rolledOut(kubectl, 'culvert-test', 'ds/eyes')
  return {
    cluster,
    kubectl,
    eyes: await Eyes.open(kubectl),
    nodes: { near, far },
    image: app,
    manifests,
    told,
    install: async () => {
      await kubectl.apply(manifests)
      await rolledOut(kubectl, SYSTEM, 'deploy/culvert-ca')
      await rolledOut(kubectl, SYSTEM, 'ds/culvert-agent')
    },
  }
}

/** The applications of `world.yaml`, ready. */
export async function startApplications({ kubectl, nodes, image }: Prepared): Promise<void> {
  const names = { APP_IMAGE: image, NODE_A: nodes.near, NODE_B: nodes.far }
  await kubectl.apply(await filled('world.yaml', names))
  const ready = (namespace: string, pod: string) =>
    kubectl.ok(['-n', namespace, 'wait', '--for=condition=Ready', `pod/${pod}`, '--timeout=120s'])
  await Promise.all([
    rolledOut(kubectl, 'shop', 'deploy/server'),
    ready('shop', 'client'),
    ready('legacy', 'old'),
  ])
}

async function filled(file: string, values: Readonly<Record<string, string>>): Promise<string> {
  const text = await readFile(new URL(file, import.meta.url), 'utf8')
  return text.replaceAll(/\$\{(\w+)\}/g, (_, name: string) => values[name] ?? '')
}

async function rolledOut(kubectl: Kubectl, namespace: string, what: string): Promise<void> {
  await kubectl.ok(['-n', namespace, 'rollout', 'status', what, '--timeout=180s'])
}
