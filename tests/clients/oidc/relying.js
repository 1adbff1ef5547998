// Applications that log their users in by us: the OpenID provider of identity under `openid-client`, a certified
// relying party. The part of the user interface, which we have not, is played by the user's own API call.
import test, { before } from 'node:test';
import assert from 'node:assert/strict';
import * as oidc from 'openid-client';
import { address, call, good } from './api.js';

const redirect_uri = 'https://app.test/callback';
let user;
let entity;

before(async () => {
  await good('POST', 'sys/auth/people', { body: { type: 'userpass' } });
  await good('POST', 'auth/people/users/alice', { body: { password: 'pw' } });
  const login = await good('POST', 'auth/people/login/alice', { body: { password: 'pw' } });
  user = login.auth.client_token;
  entity = login.auth.entity_id;
  await good('POST', `identity/entity/id/${entity}`, { body: { name: 'alice', metadata: { mail: 'alice@test' } } });
  const group = await good('POST', 'identity/group', { body: { name: 'engineers', member_entity_ids: [entity] } });
  await good('POST', 'identity/oidc/assignment/engineers', { body: { group_ids: [group.data.id] } });
  await good('POST', 'identity/oidc/scope/profile', {
    body: { template: '{"name": {{identity.entity.name}}, "mail": {{identity.entity.metadata.mail}}}' },
  });
  const template = Buffer.from('{"groups": {{identity.entity.groups.names}}}').toString('base64');
  await good('POST', 'identity/oidc/scope/groups', { body: { template } });
});

// A provider of its own for one client.
async function application(name, more = {}, key = {}) {
  await good('POST', `identity/oidc/key/${name}`, { body: { allowed_client_ids: '*', ...key } });
  await good('POST', `identity/oidc/client/${name}`, {
    body: { redirect_uris: [redirect_uri], assignments: ['engineers'], key: name, id_token_ttl: '30m', access_token_ttl: '1h', ...more },
  });
  const { data } = await good('GET', `identity/oidc/client/${name}`);
  await good('POST', `identity/oidc/provider/${name}`, {
    body: { allowed_client_ids: [data.client_id], scopes_supported: ['profile', 'groups'] },
  });
  return data;
}

async function discover(name, client, method) {
  const issuer = new URL(`${address}/v1/identity/oidc/provider/${name}`);
  const auth = { none: oidc.None, basic: oidc.ClientSecretBasic, post: oidc.ClientSecretPost }[method];
  const metadata = { redirect_uris: [redirect_uri] };
  return oidc.discovery(issuer, client.client_id, metadata, auth(client.client_secret), {
    execute: [oidc.allowInsecureRequests],
  });
}

// What the user's browser does on the page of the user interface, and where it is sent then.
async function authorise(config, parameters, token = user) {
  const url = oidc.buildAuthorizationUrl(config, { redirect_uri, scope: 'openid profile groups', ...parameters });
  assert.ok(url.pathname.startsWith('/ui/vault/'), url.href);
  const answer = await call('GET', `${url.pathname.replace('/ui/vault/', '')}${url.search}`, { token });
  if (answer.status !== 200) return { answer };
  const back = new URL(redirect_uri);
  for (const [name, value] of Object.entries(answer.json)) back.searchParams.set(name, value);
  return { answer, back };
}

for (const [method, algorithm] of [['basic', 'RS256'], ['post', 'ES384'], ['none', 'EdDSA'], ['basic', 'ES512']]) {
  test(`the code flow: ${method}, ${algorithm}`, async () => {
    const name = `${method}-${algorithm}`.toLowerCase();
    const more = { client_type: method === 'none' ? 'public' : 'confidential' };
    const client = await application(name, more, { algorithm });
    assert.equal('client_secret' in client, method !== 'none');
    const config = await discover(name, client, method);
    config.clientMetadata().id_token_signed_response_alg = algorithm;
    const verifier = oidc.randomPKCECodeVerifier();
    const [state, nonce] = [oidc.randomState(), oidc.randomNonce()];
    const code_challenge = await oidc.calculatePKCECodeChallenge(verifier);
    const asked = { state, nonce, code_challenge, code_challenge_method: 'S256', max_age: '600' };
    const { back } = await authorise(config, asked);
    const checks = { pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce, maxAge: 600 };
    const tokens = await oidc.authorizationCodeGrant(config, back, checks);
    const claims = tokens.claims();
    assert.deepEqual([claims.sub, claims.aud, claims.namespace], [entity, client.client_id, 'root']);
    assert.equal(claims.exp - claims.iat, 1800);
    assert.deepEqual([claims.name, claims.mail, claims.groups], ['alice', 'alice@test', ['engineers']]);
    assert.equal(tokens.expires_in, 3600);
    const told = await oidc.fetchUserInfo(config, tokens.access_token, entity);
    assert.deepEqual(told, { sub: entity, name: 'alice', mail: 'alice@test', groups: ['engineers'] });
    // a code is good once
    await assert.rejects(oidc.authorizationCodeGrant(config, back, checks), (e) => e.error === 'invalid_grant');
    // the access token opens nothing but userinfo, and that of its own provider
    for (const path of ['auth/token/lookup-self', `identity/entity/id/${entity}`, 'cubbyhole/x']) {
      assert.equal((await call('GET', path, { token: tokens.access_token })).status, 403, path);
    }
    const elsewhere = await call('GET', 'identity/oidc/provider/default/userinfo', { token: tokens.access_token });
    assert.equal(elsewhere.status, 401);
    assert.match(elsewhere.headers.get('www-authenticate'), /^Bearer error="invalid_token"/);
  });
}

test('what a user may not is refused in the words of the protocol', async () => {
  const client = await application('strict');
  const config = await discover('strict', client, 'basic');
  await good('POST', 'auth/people/users/eve', { body: { password: 'pw' } });
  const eve = (await good('POST', 'auth/people/login/eve', { body: { password: 'pw' } })).auth.client_token;
  for (const [parameters, error, token] of [
    [{}, 'access_denied', eve],
    [{}, 'access_denied', process.env.VAULT_TOKEN],
    [{ redirect_uri: 'https://evil.test/' }, 'invalid_redirect_uri', user],
    [{ scope: 'profile' }, 'invalid_request', user],
    [{ response_type: 'token' }, 'unsupported_response_type', user],
    [{ max_age: '0' }, 'invalid_request', user],
    [{ code_challenge: 'short' }, 'invalid_request', user],
    [{ request: 'x' }, 'request_not_supported', user],
    [{ request_uri: 'x' }, 'request_uri_not_supported', user],
  ]) {
    const { answer } = await authorise(config, { state: 's', ...parameters }, token);
    assert.deepEqual([answer.status, answer.json?.error, answer.json?.state], [400, error, 's'], answer.text);
  }
  const { answer } = await authorise(config, {}, '');
  assert.equal(answer.status, 403);
});

test('what a client may not', async () => {
  const [client, other] = [await application('one'), await application('two')];
  const config = await discover('one', client, 'basic');
  const fresh = async (parameters = {}) => (await authorise(config, { state: 's', ...parameters })).back.searchParams.get('code');
  const post = (provider, fields, id = client.client_id, secret = client.client_secret) =>
    call('POST', `identity/oidc/provider/${provider}/token`, {
      token: '',
      form: { grant_type: 'authorization_code', redirect_uri, client_id: id, client_secret: secret, ...fields },
    });
  const is = (answer, status, error) => assert.deepEqual([answer.status, answer.json?.error], [status, error], answer.text);
  const wrong = await post('one', { code: await fresh() }, client.client_id, 'guessed');
  is(wrong, 401, 'invalid_client');
  assert.equal(wrong.headers.get('www-authenticate'), 'Basic');
  is(await post('one', { code: await fresh() }, 'nobody'), 401, 'invalid_client');
  is(await post('two', { code: await fresh() }), 401, 'invalid_client');
  is(await post('two', { code: await fresh() }, other.client_id, other.client_secret), 400, 'invalid_grant');
  is(await post('none', { code: 'x' }), 400, 'invalid_request');
  is(await post('one', { code: 'x'.repeat(42) }), 400, 'invalid_grant');
  is(await post('one', { code: await fresh(), redirect_uri: 'https://app.test/' }), 400, 'invalid_grant');
  is(await post('one', { code: await fresh(), grant_type: 'password' }), 400, 'unsupported_grant_type');
  is(await post('one', { code: await fresh(), code_verifier: 'v'.repeat(43) }), 400, 'invalid_request');
  const code_challenge = 'c'.repeat(43);
  is(await post('one', { code: await fresh({ code_challenge }) }), 400, 'invalid_request');
  is(await post('one', { code: await fresh({ code_challenge }), code_verifier: 'd'.repeat(43) }), 400, 'invalid_grant');
  is(await post('one', { code: await fresh({ code_challenge }), code_verifier: code_challenge }), 200);
  const good_ = await post('one', { code: await fresh() });
  is(good_, 200);
  assert.equal(good_.headers.get('cache-control'), 'no-store');
  // who is disabled is not spoken of any more
  await good('POST', `identity/entity/id/${entity}`, { body: { disabled: true } });
  const told = await call('GET', 'identity/oidc/provider/one/userinfo', { token: good_.json.access_token });
  await good('POST', `identity/entity/id/${entity}`, { body: { disabled: false } });
  is(told, 403, 'access_denied');
});

test('a token that somebody made himself is no access token', async () => {
  await application('forged');
  const meta = { oidc_token_type: 'access token', entity_id: entity, client_id: 'x', scopes: 'profile' };
  const made = await good('POST', 'auth/token/create', { body: { type: 'batch', meta, policies: 'default' } });
  for (const token of [made.auth.client_token, user, process.env.VAULT_TOKEN, 'hvb.AAAA', '']) {
    const answer = await call('GET', 'identity/oidc/provider/forged/userinfo', { token });
    assert.deepEqual([answer.status, answer.json?.error], [401, 'invalid_token'], answer.text);
  }
});
