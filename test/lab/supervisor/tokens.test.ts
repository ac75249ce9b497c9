import { createLocalJWKSet, jwtVerify, type JSONWebKeySet } from 'jose'
import t from 'tap'
import { TOKEN_AUDIENCE, TOKEN_ISSUER, TokenSigner } from '../../../lab/supervisor/tokens.ts'

await t.test('a token has the claims of a projected one, and the JWKS verifies it', async t => {
  const signer = await TokenSigner.create()
  const token = await signer.sign({
    node: 'node-a',
    nodeUid: 'nu',
    pod: 'culvert-agent-node-a',
    podUid: 'pu',
    serviceAccountUid: 'su',
  })
  const jwks = JSON.parse(signer.jwks) as JSONWebKeySet
  t.notOk(signer.jwks.includes('"d"'), 'the private half is not in it')
  const { payload } = await jwtVerify(token, createLocalJWKSet(jwks), {
    issuer: TOKEN_ISSUER,
    audience: TOKEN_AUDIENCE,
  })
  t.match(payload, {
    sub: 'system:serviceaccount:culvert-system:culvert-agent',
    aud: ['culvert-ca'],
    'kubernetes.io': {
      namespace: 'culvert-system',
      node: { name: 'node-a', uid: 'nu' },
      pod: { name: 'culvert-agent-node-a', uid: 'pu' },
      serviceaccount: { name: 'culvert-agent', uid: 'su' },
    },
  })
  t.equal(payload.exp! - payload.iat!, 3600)
})
