// A real OpenID provider (the `oidc-provider` package, certified) on loopback, and a person with a browser: cookies,
// redirects, and the forms of the provider's own pages.
import http from 'node:http';
import assert from 'node:assert/strict';
import { Provider } from 'oidc-provider';

export const client = { id: 'ringfence', secret: 'a secret with / and +' };
const groups = { alice: ['ops', 'dev'], bob: [] };

// Begins it; `redirects` are the places that browsers may come back to.
export async function begin(redirects) {
  const server = http.createServer();
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: client.id,
        client_secret: client.secret,
        redirect_uris: redirects,
        response_types: ['code'],
        grant_types: ['authorization_code'],
      },
    ],
    claims: { openid: ['sub'], profile: ['name'], groups: ['groups'] },
    scopes: ['openid', 'profile', 'groups'],
    // the groups are told by userinfo alone, the rest by the token
    findAccount: (_, id) => ({
      accountId: id,
      claims: async () => ({ sub: id, name: `${id} of the tests`, groups: groups[id] ?? [] }),
    }),
    pkce: { required: () => true },
    cookies: { keys: ['of the tests'] },
  });
  server.on('request', provider.callback());
  return { issuer, end: () => new Promise((done) => (server.closeAllConnections(), server.close(done))) };
}

const hidden = (page) =>
  Object.fromEntries(
    [...page.matchAll(/<input[^>]*>/g)]
      .map(([tag]) => ({ name: /name="([^"]*)"/.exec(tag)?.[1], value: /value="([^"]*)"/.exec(tag)?.[1] ?? '' }))
      .filter(({ name }) => name)
      .map(({ name, value }) => [name, value.replaceAll('&quot;', '"').replaceAll('&amp;', '&')]),
  );

// Visits a URL as `user`, who logs in and consents; answers the page where the browser ends up, which is not the
// provider's.
export async function visit(url, issuer, user) {
  const cookies = new Map();
  let request = { url, method: 'GET' };
  for (let step = 0; step < 20; step++) {
    const away = !request.url.startsWith(issuer);
    const response = await fetch(request.url, {
      method: request.method,
      body: request.body,
      redirect: 'manual',
      headers: away ? {} : { cookie: [...cookies].map(([k, v]) => `${k}=${v}`).join('; ') },
    });
    for (const cookie of away ? [] : response.headers.getSetCookie()) {
      const [name, value] = cookie.split(';')[0].split('=');
      value === '' ? cookies.delete(name) : cookies.set(name, value);
    }
    const place = response.headers.get('location');
    if (place) {
      request = { url: new URL(place, request.url).href, method: 'GET' };
      continue;
    }
    const page = await response.text();
    if (away) {
      return { status: response.status, page, url: request.url };
    }
    const action = /<form[^>]*action="([^"]*)"/.exec(page)?.[1];
    assert.ok(action, `a page without a form at ${request.url}: ${response.status} ${page}`);
    const fields = hidden(page);
    if ('login' in fields) {
      Object.assign(fields, { login: user, password: 'any' });
    }
    request = { url: new URL(action, request.url).href, method: 'POST', body: new URLSearchParams(fields) };
  }
  throw new Error('the browser goes round in circles');
}
