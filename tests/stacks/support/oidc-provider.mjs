// The authorization server of tests/stacks/oidc.rs and browser.rs: oidc-provider from the node_modules in OIDC_PROVIDER_HOME,
// on a free port of this machine. It prints its URL, and exits when its standard input ends.
//
// POST /login/refresh_token begins a session, as a login in a browser would, and returns its first refresh token.
// POST /login/code returns an authorization code instead. POST /revoke_access_token/… ends one access token only; the
// standard revocation endpoint would end the whole session. A person logs in on its own pages, with any name and password.

import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(`${process.env.OIDC_PROVIDER_HOME}/`);
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));

const scope = 'openid offline_access';
const accountId = 'user-1';

const server = createServer((request, response) => handle(request, response));
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const url = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(url, {
  clients: [
    {
      client_id: 'client:1',
      client_secret: 's3cr+t/=&% and more',
      grant_types: ['authorization_code', 'refresh_token'],
      redirect_uris: ['https://client.example/back'],
    },
    // A program on the machine of a person.
    {
      client_id: 'native-app',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'],
      redirect_uris: ['http://127.0.0.1/callback'],
    },
    // The API, which introspects the tokens.
    {
      client_id: 'api',
      client_secret: 'api-secret',
      grant_types: [],
      response_types: [],
      redirect_uris: [],
    },
  ],
  // The client sends no redirect_uri with the code: RFC 6749 §4.1.3 needs it only after an authorization request with one.
  allowOmittingSingleRegisteredRedirectUri: true,
  features: {
    devInteractions: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
  },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  rotateRefreshToken: true,
  scopes: scope.split(' '),
  ttl: { AccessToken: 600, Grant: 3600, IdToken: 600, RefreshToken: 3600 },
});

async function logIn(grantType) {
  const client = await provider.Client.find('client:1');
  const grant = new provider.Grant({ accountId, clientId: client.clientId });
  grant.addOIDCScope(scope);
  const session = {
    accountId,
    client,
    grantId: await grant.save(),
    gty: 'authorization_code',
    redirectUri: client.redirectUris[0],
    scope,
  };
  const { AuthorizationCode, RefreshToken } = provider;
  return new (grantType === 'code' ? AuthorizationCode : RefreshToken)(session).save();
}

const callback = provider.callback();

async function handle(request, response) {
  const [, action, argument] = request.url.split('/');
  if (action === 'login') {
    response.end(await logIn(argument));
  } else if (action === 'revoke_access_token') {
    await (await provider.AccessToken.find(argument)).destroy();
    response.end();
  } else {
    callback(request, response);
  }
}

console.log(url);
process.stdin.on('end', () => process.exit()).resume();
