/** `culvert lab add-pod`: another pod in a running lab, by options or from a manifest. */
import { readFileSync } from 'node:fs'
import { Option, type Command } from 'commander'
import { CulvertError } from '../../lib/errors.ts'
import type { KubePod } from '../../lib/kube/objects.ts'
import { jsonOption, nameOption, pair, verb } from '../command.ts'
import { print, printJson } from '../output.ts'

interface AddPodOptions {
  readonly name: string
  readonly namespace: string
  readonly node?: string
  readonly serviceAccount: string
  readonly label?: Record<string, string>
  readonly annotation?: Record<string, string>
  readonly file?: string
  readonly json?: boolean
}

export function addPodVerb(): Command {
  return verb({
    name: 'add-pod',
    summary: 'add a pod to a running lab',
    description:
      "Adds a pod and returns when it is ready. Without a command it runs the lab's application server: HTTP on " +
      '8080, echo on 7000, slow reader on 7001, sink on 7002, reset on 7003.',
    examples: [
      ['culvert lab add-pod web --namespace shop', 'an application server on the next node'],
      [
        'culvert lab add-pod web --namespace shop --label app=echo',
        'behind the Service that selects app=echo',
      ],
      ['culvert lab add-pod shell --namespace shop -- sleep infinity', 'a command of its own'],
      ['culvert lab add-pod -f pods.yaml', 'from a manifest'],
    ],
  })
    .addOption(nameOption())
    .option('--namespace <namespace>', 'Kubernetes namespace', 'default')
    .option('--node <node>', 'where it runs (default: the nodes take turns)')
    .option('--service-account <name>', 'its identity', 'default')
    .addOption(new Option('--label <key=value>', 'may be given more than once').argParser(pair))
    .addOption(new Option('--annotation <key=value>', 'may be given more than once').argParser(pair))
    .option('-f, --file <file>', "a manifest of pods; '-' is standard input")
    .addOption(jsonOption())
    .argument('[pod]', "the pod's name")
    .argument('[command...]', 'program and arguments, after --')
    .action(addPod)
}

async function addPod(pod: string | undefined, command: string[], options: AddPodOptions): Promise<void> {
  if ((pod === undefined) === (options.file === undefined))
    throw new CulvertError('INPUT', 'a pod is added by its name or from a file, one of the two', {
      hint: 'culvert lab add-pod --help shows both',
    })
  const manifest = await (pod === undefined ? fromFile(options.file!) : fromOptions(pod, command, options))
  const { openLab } = await import('../../lab/lab.ts')
  const added = await openLab(options.name).addPods(manifest)
  if (options.json) printJson(added)
  else for (const { key, node, ips } of added) print(`${key} is ready on ${node}: ${ips.join(' ')}`)
}

async function fromFile(file: string): Promise<string> {
  let text: string
  try {
    text = readFileSync(file === '-' ? 0 : file, 'utf8')
  } catch (err) {
    throw new CulvertError('INPUT', `${file} cannot be read`, { cause: err })
  }
  const { parseManifest } = await import('../../lib/kube/manifest.ts')
  parseManifest(text, file) // the lab does it again, but does not know the file's name
  return text
}

async function fromOptions(name: string, command: string[], options: AddPodOptions): Promise<string> {
  const { namespace, node, serviceAccount, label, annotation } = options
  const pod: KubePod = {
    kind: 'Pod',
    metadata: {
      name,
      namespace,
      uid: '',
      ...(label && { labels: label }),
      ...(annotation && { annotations: annotation }),
    },
    spec: {
      ...(node === undefined ? {} : { nodeName: node }),
      serviceAccountName: serviceAccount,
      hostNetwork: false,
      containers: [
        command.length > 0 ? { name: 'app', command } : { name: 'app', image: 'culvert.dev/lab-app' },
      ],
      probePorts: [],
    },
    status: { phase: 'Pending', podIPs: [], ready: false },
  }
  const { stringifyManifest } = await import('../../lib/kube/manifest.ts')
  return stringifyManifest([pod])
}
