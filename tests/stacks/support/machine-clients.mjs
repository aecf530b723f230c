// The authorization server of tests/stacks/machine_clients.rs: oidc-provider from the node_modules in OIDC_PROVIDER_HOME,
// on a free port of this machine. It has a client for each way to authenticate.
//
// Its configuration is a JSON object on the first line of its standard input:
//
//   keys          public keys (JWK) of the clients that sign, by client id; each key has the `alg` that the client uses
//   certificate   the client certificate (PEM) of the client `mtls`
//   tls           key and certificate (PEM) of the server itself. Without it, the server speaks plain http.
//   hours_ahead   by how many hours the server's clock is wrong
//
// It prints its URL, and exits when its standard input ends.

import { X509Certificate, createPublicKey } from 'node:crypto';
import { createServer as createHttpServer } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const require = createRequire(`${process.env.OIDC_PROVIDER_HOME}/`);

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const { keys = {}, certificate, tls, hours_ahead = 0 } = JSON.parse((await lines.next()).value);

if (hours_ahead) {
  // Before oidc-provider is loaded, so that all of it sees this clock.
  const ahead = hours_ahead * 3_600_000;
  const RealDate = Date;
  globalThis.Date = class extends RealDate {
    constructor(...args) {
      super(...(args.length ? args : [RealDate.now() + ahead]));
    }
    static now() {
      return RealDate.now() + ahead;
    }
  };
}
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));

const server = tls
  ? createHttpsServer({ ...tls, requestCert: true, rejectUnauthorized: false }, handle)
  : createHttpServer(handle);
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const { port } = server.address();
const url = tls ? `https://localhost:${port}` : `http://127.0.0.1:${port}`;

const machine = (client_id, token_endpoint_auth_method, more = {}) => ({
  client_id,
  token_endpoint_auth_method,
  grant_types: ['client_credentials'],
  response_types: [],
  redirect_uris: [],
  ...more,
});

const clients = [
  machine('basic:1', 'client_secret_basic', { client_secret: 's3cr+t/=&% and more' }),
  machine('post', 'client_secret_post', { client_secret: 's3cr+t/=&% and more' }),
  machine('hs256', 'client_secret_jwt', {
    client_secret: 'a-made-up-secret-of-at-least-32-bytes',
    token_endpoint_auth_signing_alg: 'HS256',
  }),
  ...Object.entries(keys).map(([id, jwk]) =>
    machine(id, 'private_key_jwt', {
      jwks: { keys: [jwk] },
      token_endpoint_auth_signing_alg: jwk.alg,
    }),
  ),
  ...(certificate
    ? [
        machine('mtls', 'self_signed_tls_client_auth', {
          jwks: {
            keys: [
              {
                ...createPublicKey(certificate).export({ format: 'jwk' }),
                x5c: [new X509Certificate(certificate).raw.toString('base64')],
              },
            ],
          },
        }),
      ]
    : []),
];

const provider = new Provider(url, {
  clients,
  clientAuthMethods: [
    'client_secret_basic',
    'client_secret_post',
    'client_secret_jwt',
    'private_key_jwt',
    'self_signed_tls_client_auth',
  ],
  enabledJWA: {
    clientAuthSigningAlgValues: ['HS256', 'RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'],
  },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true },
    mTLS: {
      enabled: true,
      selfSignedTlsClientAuth: true,
      getCertificate: (ctx) => {
        const { raw } = ctx.socket.getPeerCertificate?.() ?? {};
        return raw && new X509Certificate(raw);
      },
    },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: () => ({ scope: 'orders:read orders:write', accessTokenFormat: 'opaque' }),
    },
  },
  scopes: ['orders:read', 'orders:write'],
  ttl: { ClientCredentials: 600 },
});
// What failed is of use when a test does.
provider.on('server_error', (_, error) => console.error(error));
if (process.env.DEBUG_OIDC) provider.on('grant.error', (_, error) => console.error(error.error_detail ?? error));

const callback = provider.callback();

function handle(request, response) {
  // Node.js itself would write the time of the machine.
  response.setHeader('Date', new Date().toUTCString());
  callback(request, response);
}

console.log(url);
process.stdin.on('end', () => process.exit());
