/** `culvert lab annotate`: what `kubectl annotate --overwrite` does. */
import type { Command } from 'commander'
import { ANNOTATION } from '../../lib/enrolment.ts'
import { CulvertError } from '../../lib/errors.ts'
import { nameOption, verb } from '../command.ts'
import { print } from '../output.ts'

export function annotateVerb(): Command {
  return verb({
    name: 'annotate',
    summary: 'set or remove annotations: enrol, strict, exclusions',
    description:
      'Sets annotations (KEY=VALUE) or removes them (KEY-) on a namespace, pod or node, like kubectl annotate ' +
      `--overwrite. Culvert reads: ${Object.values(ANNOTATION)
        .filter(name => name !== ANNOTATION.status)
        .join(', ')}.`,
    examples: [
      [`culvert lab annotate namespace/legacy ${ANNOTATION.mesh}=enabled`, 'everything in it joins the mesh'],
      [`culvert lab annotate pod/server ${ANNOTATION.mtls}=strict`, 'no plaintext comes in any more'],
      [`culvert lab annotate pod/server ${ANNOTATION.mtls}-`, 'as its namespace says again'],
    ],
  })
    .addOption(nameOption())
    .argument('<target>', 'namespace/NAME, pod/NAME, pod/NAMESPACE/NAME or node/NAME')
    .argument('<change...>', 'KEY=VALUE or KEY-')
    .action(async (target: string, changes: string[], { name }: { name: string }) => {
      const wanted = Object.fromEntries(changes.map(change))
      const { openLab } = await import('../../lab/lab.ts')
      await openLab(name).annotate(target, wanted)
      print(`${target} is annotated`)
    })
}

function change(text: string): [string, string | null] {
  const at = text.indexOf('=')
  if (at > 0) return [text.slice(0, at), text.slice(at + 1)]
  if (at < 0 && text.endsWith('-') && text.length > 1) return [text.slice(0, -1), null]
  throw new CulvertError('INPUT', `'${text}' is neither KEY=VALUE nor KEY-`)
}
