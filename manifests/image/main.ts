/** Makes the image from what is installed on this machine: no registry, no daemon, no root. */
import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { CulvertError, errorText } from '../../lib/errors.ts'
import { VERSION } from '../../lib/version.ts'
import { buildFromMachine } from './build.ts'

const USAGE = `Makes Culvert's image from this machine's files (Debian or alike, after npm ci), without a registry or a daemon.

usage: npm run image -- [--out FILE] [--tag NAME:TAG] [--gzip] [--json]

  --out FILE       the image, as ctr images import, docker load and kind load image-archive take it (default: culvert.tar)
  --tag NAME:TAG   default: localhost/culvert:${VERSION}
  --gzip           compress the layers, as a registry would have them
  --json           figures as one JSON value
`

const root = fileURLToPath(new URL('../..', import.meta.url))

function main(): void {
  const { values } = parseArgs({
    options: {
      out: { type: 'string', default: 'culvert.tar' },
      tag: { type: 'string', default: `localhost/culvert:${VERSION}` },
      gzip: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(USAGE)
    return
  }
  if (
    !/^[a-z0-9][a-z0-9./_-]*(:\d+\/[a-z0-9./_-]+)?:[\w][\w.-]{0,127}$/.test(values.tag) ||
    values.tag.endsWith(':latest')
  )
    throw new CulvertError('INPUT', `'${values.tag}' is not NAME:TAG`, {
      hint: 'and no :latest, which clusters try to pull anew',
    })
  const startedAt = performance.now()
  const image = buildFromMachine(root, { tag: values.tag, isCompressed: values.gzip })
  writeFileSync(values.out, image.tar)
  const figures = {
    tag: values.tag,
    out: values.out,
    digest: image.digest,
    fileBytes: image.tar.length,
    unpackedBytes: image.layers.reduce((sum, { bytes }) => sum + bytes, 0),
    layers: image.layers,
    tookMs: Math.round(performance.now() - startedAt),
  }
  process.stdout.write(values.json ? `${JSON.stringify(figures, undefined, 2)}\n` : textOf(figures))
}

type Figures = {
  tag: string
  out: string
  digest: string
  fileBytes: number
  unpackedBytes: number
  tookMs: number
} & Pick<ReturnType<typeof buildFromMachine>, 'layers'>

function textOf({ tag, out, digest, fileBytes, unpackedBytes, layers, tookMs }: Figures): string {
  const mb = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`
  return [
    `${tag} ${digest}`,
    ...layers.map(layer => `  ${layer.name.padEnd(14)} ${mb(layer.bytes).padStart(9)}  ${layer.digest}`),
    `${out}: ${mb(fileBytes)}, ${mb(unpackedBytes)} unpacked, made in ${(tookMs / 1000).toFixed(1)} s`,
    '',
  ].join('\n')
}

try {
  main()
} catch (err) {
  process.stderr.write(`image: ${errorText(err)}\n`)
  if (err instanceof CulvertError && err.hint) process.stderr.write(`hint: ${err.hint}\n`)
  process.exitCode = err instanceof TypeError || (err instanceof CulvertError && err.code === 'INPUT') ? 2 : 1
}
