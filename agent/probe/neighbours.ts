/** Who else has rules in the pods' network namespaces: other meshes, what they left behind, and what we left. */
import type { Finding } from '../../lib/finding.ts'
import { errorText } from '../../lib/errors.ts'
import { Iptables } from '../redirect/iptables.ts'
import { familiesOf } from '../redirect/return-path.ts'
import { parseSaved } from '../redirect/saved.ts'
import { podNamespaces, withNetns } from './namespaces.ts'

/** The names that their chains begin with. */
const OTHERS: readonly (readonly [prefix: string, name: string])[] = [
  ['ISTIO_', 'Istio'],
  ['PROXY_INIT_', 'Linkerd'],
  ['KUMA_', 'Kuma'],
  ['MESH_', 'Kuma'],
  ['CONSUL_', 'Consul'],
  ['CULVERT_', 'Culvert'],
]
/** Each takes some tens of milliseconds of programs. */
const MOST_NAMESPACES = 500

export async function checkNeighbours(): Promise<Finding[]> {
  const found = podNamespaces()
  const counts = new Map<string, number>()
  let iptables: Iptables | undefined
  try {
    for (const netns of found.slice(0, MOST_NAMESPACES))
      await withNetns(netns, async fd => {
        iptables ??= await Iptables.detect(fd)
        for (const name of await meshesIn(iptables, fd)) counts.set(name, (counts.get(name) ?? 0) + 1)
      })
  } catch (err) {
    return [{ id: 'neighbours', state: 'warn', text: `pods' packet rules cannot be read: ${errorText(err)}` }]
  }
  const unseen = found.length - MOST_NAMESPACES
  return [
    {
      id: 'neighbours',
      state: 'ok',
      text: `${found.length} pods with a network of their own${unseen > 0 ? `, ${unseen} of them not looked into` : ''}`,
    },
    ...[...counts].map(([name, count]) => findingOf(name, count)),
  ]
}

async function meshesIn(iptables: Iptables, fd: number): Promise<Set<string>> {
  const names = new Set<string>()
  for (const family of familiesOf(fd)) {
    const tables = parseSaved(await iptables.save(fd, family))
    for (const table of tables.values())
      for (const chain of table.keys()) {
        const name = OTHERS.find(([prefix]) => chain.startsWith(prefix))?.[1]
        if (name !== undefined) names.add(name)
      }
  }
  return names
}

function findingOf(name: string, count: number): Finding {
  const pods = `${count} pod${count === 1 ? '' : 's'}`
  if (name === 'Culvert')
    return { id: 'rules-in-place', state: 'ok', text: `${pods} with Culvert's own rules` }
  return {
    id: `other-mesh/${name.toLowerCase()}`,
    state: 'warn',
    text: `${pods} with rules of ${name}`,
    hint: 'they are left alone as long as they are not enrolled; what an uninstalled mesh has left goes with the pod',
  }
}
