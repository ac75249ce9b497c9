/**
 * One HTTP request on a connection of its own, for clients in pods: prints one line of JSON, what was answered or how it
 * failed.
 *
 * usage: node get.ts URL [TIMEOUT-MS]
 */
import { request } from 'node:http'
import { errorCode, errorText } from '../../lib/errors.ts'

const [url = '', timeoutMs = '5000'] = process.argv.slice(2)
const tell = (value: unknown) => process.stdout.write(`${JSON.stringify(value)}\n`)
const failed = (err: unknown) => tell({ ok: false, error: errorCode(err) ?? errorText(err) })

const asking = request(url, { agent: false, timeout: Number(timeoutMs) }, answer => {
  let body = ''
  answer.setEncoding('utf8')
  answer.on('error', failed)
  answer.on('data', (text: string) => (body += text))
  answer.on('end', () =>
    answer.statusCode === 200
      ? tell({ ok: true, seen: JSON.parse(body) as unknown })
      : tell({ ok: false, error: `HTTP ${answer.statusCode}` }),
  )
})
asking.on('timeout', () => asking.destroy(new Error('timeout')))
asking.on('error', failed)
asking.end()
