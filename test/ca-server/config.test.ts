import t from 'tap'
import { configFrom, SETTINGS_HELP } from '../../ca-server/config.ts'

const ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount'
const REQUIRED = { WORLD_FILE: '/w.yaml', JWKS_FILE: '/jwks.json', TOKEN_ISSUER: 'https://issuer' }

await t.test('three settings are enough without a cluster', t => {
  t.match(configFrom(REQUIRED), {
    worldFile: '/w.yaml',
    tokenKeys: { file: '/jwks.json', issuer: 'https://issuer' },
    kubernetes: undefined,
    listenPort: 15012,
    listenAddress: undefined,
    metricsPort: 15014,
    dataDir: '/var/lib/culvert-ca',
    trustDomain: 'cluster.local',
    clusterId: 'Kubernetes',
    tokenAudience: 'culvert-ca',
    trustedNodeAccounts: new Set(['culvert-system/culvert-agent', 'culvert-system/ztunnel']),
    defaultTtlMs: 86_400_000,
    maxTtlMs: 86_400_000,
    authority: { kind: 'own-root', directory: '/var/lib/culvert-ca' },
    serverDnsNames: ['localhost', 'culvert-ca.culvert-system.svc'],
    serverIps: ['127.0.0.1', '::1'],
    tunnelWithoutReport: false,
    strictByDefault: false,
    logLevel: 'info',
  })
  t.end()
})

await t.test('in a pod none is needed, outside of one a kubeconfig', t => {
  const inPod = { KUBERNETES_SERVICE_HOST: '10.96.0.1', KUBERNETES_SERVICE_PORT: '6443' }
  t.match(configFrom(inPod), {
    worldFile: undefined,
    tokenKeys: undefined,
    kubernetes: { kubeconfig: undefined, host: '10.96.0.1', port: 6443, accountDirectory: ACCOUNT },
  })
  t.match(configFrom({ ...inPod, KUBECONFIG: '/k.yaml' }).kubernetes, { kubeconfig: '/k.yaml' })
  t.match(configFrom({ KUBECONFIG: '/k.yaml' }).kubernetes, { kubeconfig: '/k.yaml', host: undefined })
  t.equal(configFrom({ ...REQUIRED, ...inPod }).kubernetes, undefined, 'a world file stands for the cluster')
  const keys = { JWKS_FILE: '/jwks.json', TOKEN_ISSUER: 'https://issuer' }
  t.match(configFrom({ ...inPod, ...keys }).tokenKeys, { file: '/jwks.json' })
  t.end()
})

await t.test('what is needed together is asked for together', t => {
  const refusal = (env: Record<string, string>): string => {
    try {
      configFrom(env)
      return ''
    } catch (err) {
      return (err as Error).message
    }
  }
  t.equal(refusal({}), 'there is no cluster to serve: KUBECONFIG or WORLD_FILE is needed outside of a pod')
  t.equal(refusal({ WORLD_FILE: '/w' }), 'JWKS_FILE and TOKEN_ISSUER are needed with WORLD_FILE')
  t.equal(refusal({ KUBECONFIG: '/k', JWKS_FILE: '/j' }), 'JWKS_FILE and TOKEN_ISSUER are needed together')
  t.end()
})

await t.test('every problem is named at once', t => {
  const env = {
    TRUST_DOMAIN: 'Upper Case',
    DEFAULT_TTL: '2d',
    SERVER_IPS: '10.0.0.1,ten',
    SERVER_DNS_NAMES: 'good.example, -bad-',
    TRUSTED_NODE_ACCOUNTS: 'culvert-agent',
    INTERMEDIATE_KEY: '/key.pem',
    JWKS_FILE: '/jwks.json',
    DEFAULT_MTLS: 'always',
    CRYPTO: 'openssl',
    LISTEN_PORT: '70000',
  }
  const expected = [
    'there is no cluster to serve: KUBECONFIG or WORLD_FILE is needed outside of a pod',
    'JWKS_FILE and TOKEN_ISSUER are needed together',
    "TRUST_DOMAIN: 'Upper Case' is not a trust domain",
    'DEFAULT_TTL is not between a second and MAX_TTL',
    "SERVER_IPS: 'ten' is not an IP address",
    "SERVER_DNS_NAMES: '-bad-' is not a DNS name",
    "TRUSTED_NODE_ACCOUNTS: 'culvert-agent' is not namespace/service-account",
    'INTERMEDIATE_KEY, INTERMEDIATE_CERT and ROOT_CERT are needed together',
    "DEFAULT_MTLS: 'always' is not one of permissive, strict",
    "CRYPTO: 'openssl' is not one of peculiar, node",
    "LISTEN_PORT: '70000' is not a whole number from 0 to 65535",
  ]
  try {
    configFrom(env)
    t.fail('it was taken')
  } catch (err) {
    t.match(err, { code: 'CONFIG' })
    for (const problem of expected) t.match((err as Error).message, problem)
  }
  t.end()
})

await t.test('help names every setting that is read, and no other', t => {
  const read = new Set<string>()
  const env = new Proxy<Record<string, string>>(
    { ...REQUIRED },
    {
      get(target, name: string) {
        read.add(name)
        return target[name]
      },
    },
  )
  configFrom(env)
  t.strictSame(SETTINGS_HELP.map(([name]) => name).sort(), [...read].sort())
  t.end()
})
