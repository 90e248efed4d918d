// A real OpenID provider on loopback for tests: two clients, RS256 access tokens with an audience, keys that rotate.
// MODULES is the folder that npm installed into. Prints {"port": N} when it listens; POST /control/rotate takes new keys.
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const require = createRequire(join(process.env.MODULES, 'package.json'))
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')).href)

const newKey = () => {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'RS256' }
}

let keys = [newKey()]
const grantTypes = ['authorization_code', 'refresh_token']

const configuration = () => ({
  jwks: { keys },
  clients: [
    { client_id: 'service', client_secret: 'service-secret', grant_types: ['client_credentials'], redirect_uris: [], response_types: [] },
    { client_id: 'other-service', client_secret: 'service-secret', grant_types: ['client_credentials'], redirect_uris: [], response_types: [] },
    {
      client_id: 'console', token_endpoint_auth_method: 'none', application_type: 'native', grant_types: grantTypes,
      redirect_uris: ['http://127.0.0.1/callback'], response_types: ['code'],
    },
  ],
  pkce: { required: () => true },
  cookies: { keys: ['a key for the cookies of a test'] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => ({
        scope: 'read write',
        audience: resource,
        accessTokenTTL: resource.includes('short') ? 1 : 600,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, name: `Name of ${id}` }) }),
})

let handler
const server = createServer((request, response) => {
  if (request.url === '/control/rotate') {
    keys = [newKey()]
    renew()
    response.end('{}')
  } else handler(request, response)
})
const renew = () => { handler = new Provider(`http://127.0.0.1:${server.address().port}`, configuration()).callback() }
server.listen(0, '127.0.0.1', () => {
  renew()
  console.log(JSON.stringify({ port: server.address().port }))
})
process.stdin.on('end', () => process.exit(0)).resume() // it ends with the test run that started it
