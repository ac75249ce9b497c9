/**
 * What nginx and haproxy have in common here: one proxy in each pod, TLS 1.3 with certificates on both sides between them,
 * one TLS connection for each TCP connection. Neither can ask where a redirected connection was going, so each
 * application port p has a listener of its own in both pods, 20000 + p at the client and 10000 + p at the server.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createRoot, issueLeaf } from '../../test/helpers/test-pki.ts'
import type { ArmName } from '../model.ts'
import { BenchProcess } from '../process.ts'
import { descriptorLimit } from '../machine.ts'
import { APP_PORT, APP_PORTS, NAMESPACE, type PodName, type World } from '../world.ts'
import type { Arm, ArmSetup, Found } from './arm.ts'

/** Name that the server's certificate has and the client's proxy insists on. */
export const SERVER_NAME = 'server.bench.internal'

/** As many as any machine of today lets a process have in all. */
const NO_LIMIT = 1_000_000

export interface ProxyFiles {
  /** Everything of this side lies here. */
  readonly dir: string
  readonly root: string
  /** Certificate and key of this side, PEM, apart and in one file. */
  readonly certificate: string
  readonly key: string
  readonly both: string
}

export interface ProxyPort {
  readonly listen: number
  /** Host and port. */
  readonly target: string
}

export interface ProxyKind {
  readonly name: ArmName
  readonly tools: readonly string[]
  readonly find: () => Promise<Found>
  /** The file that `argv` names. */
  readonly configName: string
  config(side: PodName, files: ProxyFiles, ports: readonly ProxyPort[]): string
  argv(side: PodName, dir: string): string[]
  /** How many processes share the connections. */
  readonly workers: number
}

export function tlsProxyArm(kind: ProxyKind): Arm {
  return {
    name: kind.name,
    tools: kind.tools,
    find: kind.find,
    set: world => set(kind, world),
  }
}

async function set(kind: ProxyKind, world: World): Promise<ArmSetup> {
  const files = await writeFiles(world)
  const ports = {
    client: APP_PORTS.map(port => ({ listen: 20_000 + port, target: `${world.server.ip}:${10_000 + port}` })),
    server: APP_PORTS.map(port => ({ listen: 10_000 + port, target: `${world.server.ip}:${port}` })),
  }
  const texts = (['server', 'client'] as const).map(side => {
    const text = kind.config(side, files[side], ports[side])
    writeFileSync(join(files[side].dir, kind.configName), text)
    return `# ${side}\n${text}`
  })
  const redirect = APP_PORTS.map(
    port =>
      `-A OUTPUT -d ${world.server.ip} -p tcp --dport ${port} -j REDIRECT --to-ports ${20_000 + port}\n`,
  )
  const rules = `*nat\n${redirect.join('')}COMMIT\n`
  await world.addRules('client', rules)
  const running: BenchProcess[] = []
  return {
    config: [...texts, `# iptables-restore in the client's pod\n${rules}`].join('\n'),
    start: () => {
      const startedAtNs = process.hrtime.bigint()
      for (const side of ['server', 'client'] as const)
        running.push(
          new BenchProcess({
            name: `${kind.name} of the ${side}`,
            argv: world.podArgv(side, kind.argv(side, files[side].dir)),
          }),
        )
      return {
        startedAtNs,
        agents: running.map(({ pid }, at) => ({ name: at === 0 ? 'server' : 'client', pid })),
        limit: {
          // Two descriptors a connection, unevenly spread over the workers.
          connections: kind.workers > 1 ? NO_LIMIT : Math.floor((descriptorLimit() * 0.95) / 2),
          why: `holds two descriptors for a connection, and this machine lets a process have ${descriptorLimit()}`,
        },
        door: { port: 10_000 + APP_PORT.echo },
        check: () => {
          for (const each of running) each.check()
        },
      }
    },
    stop: async () => {
      await Promise.all(running.map(each => each.stop()))
    },
  }
}

/**
 * Certificates of a root made for this one run. These proxies take keys from files only: they lie in the world's
 * directory below /run, root's alone, and go with it.
 */
async function writeFiles(world: World): Promise<Record<PodName, ProxyFiles>> {
  const authority = await createRoot('culvert bench')
  const side = async (name: PodName, dnsName: string): Promise<ProxyFiles> => {
    const dir = join(world.paths.run, `proxy-${name}`)
    mkdirSync(dir, { mode: 0o700 })
    const keys = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign'])
    const certificate = await issueLeaf(authority, await crypto.subtle.exportKey('spki', keys.publicKey), {
      identity: `spiffe://cluster.local/ns/${NAMESPACE}/sa/${name}`,
      names: [{ type: 'dns', value: dnsName }],
    })
    const key = keyPem(await crypto.subtle.exportKey('pkcs8', keys.privateKey))
    const files: ProxyFiles = {
      dir,
      root: join(dir, 'root.pem'),
      certificate: join(dir, 'cert.pem'),
      key: join(dir, 'key.pem'),
      both: join(dir, 'both.pem'),
    }
    writeFileSync(files.root, authority.pem)
    writeFileSync(files.certificate, certificate)
    writeFileSync(files.key, key, { mode: 0o600 })
    writeFileSync(files.both, certificate + key, { mode: 0o600 })
    return files
  }
  return {
    client: await side('client', 'client.bench.internal'),
    server: await side('server', SERVER_NAME),
  }
}

function keyPem(pkcs8: ArrayBuffer): string {
  const lines = Buffer.from(pkcs8)
    .toString('base64')
    .replaceAll(/.{1,64}/g, '$&\n')
  return `-----BEGIN PRIVATE KEY-----\n${lines}-----END PRIVATE KEY-----\n`
}
