/** HTTP requests a second: wrk with 64 connections that stay open, against a plain `node:http` server. */
import { CulvertError } from '../../lib/errors.ts'
import { APP_PORT } from '../world.ts'
import type { Measurement, Timing } from './measurement.ts'

export function http(): Measurement {
  return {
    id: 'http',
    tools: ['wrk'],
    metrics: timing => [
      {
        id: 'http',
        title: 'HTTP, 64 connections',
        unit: '1/s',
        better: 'higher',
        command: wrkArgv('SERVER', timing).join(' '),
        about: 'HTTP/1.1 requests answered a second, over 64 connections that stay open.',
      },
    ],
    run: async at => ({ http: parseWrk(await at.output(wrkArgv(at.world.server.ip, at.timing))) }),
  }
}

function wrkArgv(host: string, { seconds }: Timing): string[] {
  const duration = `${Math.max(1, Math.round(seconds))}s`
  return [
    'wrk',
    '--threads',
    '2',
    '--connections',
    '64',
    '--duration',
    duration,
    `http://${host}:${APP_PORT.http}/`,
  ]
}

/** Requests a second. Throws `TOOL` when one has failed: such a rate means nothing. */
export function parseWrk(text: string): number {
  const failed = /^\s*(Socket errors: .*|Non-2xx or 3xx responses: .*)$/m.exec(text)?.[1]
  if (failed !== undefined) throw new CulvertError('TOOL', `wrk: ${failed}`)
  const rate = Number(/^Requests\/sec:\s+([\d.]+)$/m.exec(text)?.[1])
  if (!(rate > 0)) throw new CulvertError('TOOL', 'wrk gave no rate')
  return rate
}
