/** The steps of the demo, in order: what works, what is on the wire, and what happens when things break. */
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Lab } from '../lab.ts'
import { holdConnection, startLoad, type Client } from './clients.ts'
import { accessLog, httpGet, podNamed, serialOf, until } from './facts.ts'
import type { LoadResult } from './load.ts'
import { expect, type Narrator } from './narrator.ts'
import { checkEncrypted, wireHolds } from './wire.ts'

const RATE = 50
/** How long a load goes on before and after what is done to it. */
const A_WHILE_MS = 700

/** Shows everything on a lab that is up; ends early when the signal aborts. */
export async function tour(lab: Lab, narrator: Narrator, signal: AbortSignal): Promise<void> {
  const client = await podNamed(lab, 'client')
  const server = await podNamed(lab, 'server')
  const old = await podNamed(lab, 'old')
  const url = `http://${server.ip}:8080/`
  const vip = (await lab.status()).services.find(({ name }) => name === 'echo')?.clusterIPs[0] ?? ''
  const steps: [name: string, work: () => Promise<string>][] = []
  const step = (name: string, work: () => Promise<string>) => steps.push([name, work])
  // From before the first connection on, so that the handshakes are in it.
  const capture = await lab.capture(client.node)
  let rotation: {
    load: Client<LoadResult>
    serials: (string | undefined)[]
    held: Awaited<ReturnType<typeof holdConnection>>
  }

  step('the application answers, and sees the client’s own address', async () => {
    const seen = await httpGet(lab, 'client', url)
    expect(seen.client.startsWith(`${client.ip}:`), `the server saw ${seen.client}, not ${client.ip}`)
    const seen6 = await httpGet(lab, 'client', `http://[${server.ip6}]:8080/`)
    expect(seen6.client.startsWith(`[${client.ip6}]:`), `the server saw ${seen6.client}, not ${client.ip6}`)
    rotation = {
      load: await startLoad(lab, 'client', url, RATE, 60),
      serials: [await serialOf(lab, client), await serialOf(lab, server)],
      held: await holdConnection(lab, 'client', server.ip, 7000),
    }
    return `client ${client.ip} on ${client.node} → server ${server.ip} on ${server.node}: ${seen.client}, ${seen6.client}`
  })
  step('both ends proved who they are', async () => {
    const line = await until('an access-log line of the server’s agent', 3000, () =>
      accessLog(lab, server.node).find(
        entry => entry['src.workload'] === 'client' && entry.reason === 'mtls',
      ),
    )
    const identities = [line['src.identity'], line['dst.identity']]
    expect(
      identities.join() === `${identityOf('client')},${identityOf('server')}`,
      `identities: ${identities.join(', ')}`,
    )
    return identities.join(' → ')
  })
  step('between the nodes there is TLS 1.3 and nothing else', async () => {
    const secrets = [secret(), secret()]
    const open = secret()
    await httpGet(lab, 'client', url, ['-d', secrets[0]!])
    await httpGet(lab, 'client', `http://[${server.ip6}]:8080/`, ['-H', `x-secret: ${secrets[1]}`])
    const encrypted = await capture.stop()
    const control = await lab.capture(client.node)
    await httpGet(lab, 'client', `http://${old.ip}:8080/`, ['-d', open])
    const plain = await control.stop()
    expect(
      wireHolds(plain, open),
      'the capture does not even see what is sent in the clear: it proves nothing',
    )
    const cidrs = (await lab.status()).nodes.flatMap(node => node.podCidrs)
    return `${checkEncrypted(encrypted, cidrs, secrets)}\n(the same capture does see a secret sent to 'old', which is not in the mesh)`
  })
  step('a pod outside the mesh still gets through, and is reported', async () => {
    const seen = await httpGet(lab, 'old', url)
    expect(seen.client.startsWith(`${old.ip}:`), `the server saw ${seen.client}, not ${old.ip}`)
    const line = await until('the report', 3000, () =>
      accessLog(lab, server.node).find(
        entry => entry['src.workload'] === 'old' && entry['direction'] === 'inbound',
      ),
    )
    expect(line.reason === 'peer-not-enrolled', `it was reported as ${line.reason}`)
    return `old ${old.ip} → server: plaintext, reason ${line.reason}`
  })
  step('a Service address is spread over its endpoints', async () => {
    const load = await startLoad(lab, 'client', `http://${vip}/`, 100, 0.6)
    const { pods, failures } = await load.result
    expect(failures.length === 0, `${failures.length} failed: ${failures[0]?.error}`)
    expect(
      (pods['server'] ?? 0) > 0 && (pods['server-2'] ?? 0) > 0,
      `all went to ${Object.keys(pods).join()}`,
    )
    return `${vip}:80 → ${Object.entries(pods)
      .map(([pod, count]) => `${pod} ${count}`)
      .join(', ')}`
  })
  step('a refused port is a reset at once; a server’s reset arrives as a reset', async () => {
    const startedAt = performance.now()
    const refused = await lab.exec('client', ['curl', '-sS', '-m', '5', `http://${server.ip}:9/`])
    const tookMs = Math.round(performance.now() - startedAt)
    expect(refused.code === 56 || refused.code === 7, `curl said: ${refused.stderr.trim()}`)
    const held = await holdConnection(lab, 'client', server.ip, 7003)
    const reset = await lab.exec('client', [
      'sh',
      '-c',
      `printf 'RESET\\n' | curl -sS -m 5 telnet://${server.ip}:7003`,
    ])
    await held.stop()
    expect(/reset/i.test(reset.stderr), `curl said: ${reset.stderr.trim() || 'nothing: an end, not a reset'}`)
    return `port 9: ${refused.stderr.trim()} after ${tookMs} ms\nport 7003: ${reset.stderr.trim()}`
  })
  step('strict refuses plaintext with a reset, and lets the mesh in', async () => {
    await lab.annotate('pod/server', { 'culvert.dev/mtls': 'strict' })
    const refused = await until('the refusal', 3000, async () => {
      const ran = await lab.exec('old', ['curl', '-sS', '-m', '3', url])
      return ran.code === 0 ? undefined : ran.stderr.trim()
    })
    await httpGet(lab, 'client', url)
    await lab.annotate('pod/server', { 'culvert.dev/mtls': null })
    await until(
      'permissive again',
      3000,
      async () => (await lab.exec('old', ['curl', '-sS', '-m', '3', url])).code === 0 || undefined,
    )
    return refused
  })
  step('certificates rotate under load: no request fails, open connections stay', async () => {
    const { load, serials, held } = rotation
    await until('new certificates for both ends', 12_000, async () => {
      const now = [await serialOf(lab, client), await serialOf(lab, server)]
      return now.every((serial, end) => serial !== serials[end]) || undefined
    })
    await httpGet(lab, 'client', url)
    const { requests, failures, slowestMs } = await load.stop()
    expect(failures.length === 0, `${failures.length} of ${requests} requests failed: ${failures[0]?.error}`)
    const { how, echoed } = await held.stop()
    expect(how === 'closed', `an open connection was cut: ${how}`)
    return `${requests} requests on new connections, 0 failed, slowest ${slowestMs} ms; an open connection echoed ${echoed} lines through it`
  })
  step('the agent of a node is replaced under load: no new connection fails', async () => {
    const load = await startLoad(lab, 'client', url, RATE, 60)
    await sleep(A_WHILE_MS)
    await lab.replaceAgent(client.node)
    await sleep(A_WHILE_MS)
    const { requests, failures } = await load.stop()
    expect(
      failures.length === 0,
      `${failures.length} of ${requests} connections failed: ${failures[0]?.error}`,
    )
    return `${requests} new connections, 0 failed`
  })
  step('an agent is killed, twice: open connections are reset, no new one fails', async () => {
    const held = await holdConnection(lab, 'client', server.ip, 7000)
    const load = await startLoad(lab, 'client', url, RATE, 60)
    const kills: number[] = []
    for (let kill = 0; kill < 2; kill++) {
      const before = await lab.killAgent(client.node)
      kills.push(Date.now())
      await until('the next agent', 5000, async () => {
        const agent = (await lab.status()).nodes.find(({ name }) => name === client.node)?.agent
        return agent?.answers && agent.pid !== before.pid ? true : undefined
      })
      await lab.waitForPod('client', ['enrolled'])
      await sleep(A_WHILE_MS)
    }
    const { requests, failures, slowestMs } = await load.stop()
    const { how } = await held.result
    // What was open when the agent died is reset like everything else that was.
    const wasOpen = ({ startedAtMs, failedAtMs }: (typeof failures)[number]) =>
      kills.some(at => startedAtMs <= at && Math.abs(failedAtMs - at) < 500)
    const failed = failures.filter(failure => !wasOpen(failure))
    expect(how === 'reset', `an open connection ended as '${how}', not as a reset`)
    expect(failed.length === 0, `${failed.length} of ${requests} new connections failed: ${failed[0]?.error}`)
    return `${requests} new connections, 0 failed, slowest ${slowestMs} ms; the open ones were reset`
  })
  step('redirection rules are flushed: put back at once', async () => {
    const startedAt = performance.now()
    await lab.exec('client', ['iptables', '-t', 'nat', '-F'])
    await until('the rules', 3000, async () => {
      const saved = await lab.exec('client', ['iptables-save', '-t', 'nat'])
      return saved.stdout.toString().includes('15001') || undefined
    })
    const tookMs = Math.round(performance.now() - startedAt)
    expect(tookMs < 1000, `it took ${tookMs} ms`)
    return `noticed and repaired within ${tookMs} ms`
  })
  step('a namespace is enrolled under load: nothing restarts, open connections live on', async () => {
    const held = await holdConnection(lab, 'client', old.ip, 7000)
    const load = await startLoad(lab, 'client', `http://${old.ip}:8080/`, RATE, 60)
    await sleep(A_WHILE_MS)
    await lab.annotate('namespace/legacy', { 'culvert.dev/mesh': 'enabled' })
    await lab.waitForPod('old', ['enrolled'])
    await until('its traffic in the tunnel', 3000, () =>
      accessLog(lab, client.node).find(entry => entry['dst.workload'] === 'old' && entry.reason === 'mtls')
        ? true
        : undefined,
    )
    const { requests, failures } = await load.stop()
    const { how, echoed } = await held.stop()
    expect(
      failures.length === 0,
      `${failures.length} of ${requests} connections failed: ${failures[0]?.error}`,
    )
    expect(how === 'closed', `the open connection was cut: ${how}`)
    return `${requests} new connections during the change, 0 failed; the open one echoed ${echoed} lines and lives`
  })

  for (const [name, work] of steps) {
    if (signal.aborted) break
    await narrator.step(name, work)
  }
}

function identityOf(account: string): string {
  return `spiffe://cluster.local/ns/shop/sa/${account}`
}

function secret(): string {
  return `secret-${randomBytes(12).toString('hex')}`
}
