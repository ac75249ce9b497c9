/** How every verb is made: the same style of help, usage errors and exit statuses. */
import { Command, InvalidArgumentError, Option } from 'commander'
import { errorText } from '../lib/errors.ts'
import { parseDurationMs } from '../lib/settings.ts'
import { note } from './output.ts'

export interface VerbText {
  readonly name: string
  /** One line, for the list of verbs. */
  readonly summary: string
  /** What it does, in whole sentences. */
  readonly description: string
  /** Command line and what it shows. */
  readonly examples: readonly (readonly [line: string, what: string])[]
}

/** A command that throws instead of ending the process, and explains itself with examples. */
export function verb({ name, summary, description, examples }: VerbText): Command {
  const command = new Command(name)
    .summary(summary)
    .description(description)
    .exitOverride()
    .allowExcessArguments(false)
    .helpCommand(false)
    .configureOutput({
      outputError: text => note(`culvert: ${text.trim().replace(/^error: /, '')}`),
    })
    .configureHelp({ sortSubcommands: false })
  command.showHelpAfterError(false)
  if (examples.length > 0) {
    const width = Math.max(...examples.map(([line]) => line.length))
    const lines = examples.map(([line, what]) => `  ${line.padEnd(width)}  ${what}`)
    command.addHelpText('after', `\nExamples:\n${lines.join('\n')}`)
  }
  return command
}

/** `--name`, which every verb of the lab has. */
export function nameOption(): Option {
  return new Option('--name <lab>', 'which lab').default('default').env('CULVERT_LAB')
}

export function jsonOption(): Option {
  return new Option('--json', 'one JSON value on standard output')
}

/** What follows `--`, or the words themselves without it: a verb that passes options through is handed the `--` too. */
export function afterDashes(words: readonly string[]): string[] {
  return words[0] === '--' ? words.slice(1) : [...words]
}

/** Checks a duration and gives it back as it was written. */
export function duration(text: string): string {
  try {
    parseDurationMs(text)
  } catch (err) {
    throw new InvalidArgumentError(errorText(err))
  }
  return text
}

export function seconds(text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new InvalidArgumentError(`'${text}' is not a whole number of seconds`)
  return Number(text)
}

/** Collects `key=value` pairs of an option that may be given more than once. */
export function pair(text: string, before: Readonly<Record<string, string>> = {}): Record<string, string> {
  const at = text.indexOf('=')
  if (at < 1) throw new InvalidArgumentError(`'${text}' is not KEY=VALUE`)
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) }
}
