// Logging in through an OpenID provider that others wrote: our command line with its listener, `form_post`, and a
// browser that comes back to the server. Driven by `tests/clients/run` with VAULT_ADDR, VAULT_TOKEN and RINGFENCE_BIN.
import test, { after, before } from 'node:test';
import assert from 'node:assert/strict';
import net from 'node:net';
import os from 'node:os';
import fs from 'node:fs';
import path from 'node:path';
import { spawn } from 'node:child_process';
import { address, call, good } from './api.js';
import { begin, client, visit } from './provider.js';

let provider;
let port;
const home = fs.mkdtempSync(path.join(os.tmpdir(), 'ringfence-oidc-'));

const freePort = () =>
  new Promise((done) => {
    const server = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });

before(async () => {
  port = await freePort();
  provider = await begin([`http://localhost:${port}/oidc/callback`, `${address}/v1/auth/direct/oidc/callback`]);
});

after(async () => {
  await provider.end();
  fs.rmSync(home, { recursive: true });
});

async function mount(name, config, role) {
  await good('POST', `sys/auth/${name}`, { body: { type: 'oidc' } });
  await good('POST', `auth/${name}/config`, {
    body: {
      oidc_discovery_url: provider.issuer,
      oidc_client_id: client.id,
      oidc_client_secret: client.secret,
      default_role: 'person',
      ...config,
    },
  });
  await good('POST', `auth/${name}/role/person`, {
    body: {
      user_claim: 'sub',
      groups_claim: 'groups',
      oidc_scopes: 'profile,groups',
      claim_mappings: { name: 'full' },
      allowed_redirect_uris: ['http://localhost:8250/oidc/callback'],
      token_policies: 'person',
      ...role,
    },
  });
}

// Starts the command line; `answer` visits what it says, and what it printed is answered when it ends.
async function commandLine(args, answer) {
  const child = spawn(process.env.RINGFENCE_BIN, ['login', '-method=oidc', ...args], {
    env: { VAULT_ADDR: address, HOME: home, PATH: process.env.PATH },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let out = '';
  let err = '';
  const ended = new Promise((done) => child.on('close', done));
  const asked = new Promise((done) => {
    child.stdout.on('data', (d) => (out += d));
    child.stderr.on('data', (d) => {
      err += d;
      if (err.includes('Waiting for OIDC authentication to complete...')) done(/https?:\/\/\S+/.exec(err)[0]);
    });
    child.on('close', () => done(undefined));
  });
  const url = await asked;
  const shown = url && answer ? await answer(url) : undefined;
  return { code: await ended, out, err, shown };
}

const asAlice = (url) => visit(url, provider.issuer, 'alice');

test('the command line logs in, and groups of the provider count', async () => {
  await mount('oidc', {});
  const accessor = (await good('GET', 'sys/auth'))['oidc/'].accessor;
  const group = await good('POST', 'identity/group', { body: { name: 'ops', type: 'external', policies: 'ops' } });
  await good('POST', 'identity/group-alias', {
    body: { name: 'ops', mount_accessor: accessor, canonical_id: group.data.id },
  });
  const args = [`port=${port}`, 'skip_browser=true'];
  const ran = await commandLine(['-token-only', ...args, 'role=person'], asAlice);
  assert.equal(ran.code, 0, ran.err);
  assert.ok(ran.err.includes('Open the following link in your browser'), ran.err);
  assert.equal(ran.shown.status, 200);
  assert.ok(ran.shown.page.includes('Signed in via your OIDC provider'));
  const { data } = await good('GET', 'auth/token/lookup-self', { token: ran.out.trim() });
  assert.equal(data.display_name, 'oidc-alice');
  assert.deepEqual(data.meta, { role: 'person', full: 'alice of the tests' });
  assert.deepEqual(data.policies, ['default', 'person']);
  assert.deepEqual(data.identity_policies, ['ops']);
  // the default role; the token is kept in the person's home
  const kept = await commandLine(args, asAlice);
  assert.equal(kept.code, 0, kept.err);
  assert.ok(kept.out.includes('You are now authenticated'), kept.out);
  assert.ok(fs.readFileSync(path.join(home, '.vault-token'), 'utf8').startsWith('hvs.'));
});

test('another login in the same browser is not taken for ours', async () => {
  let strange;
  const ran = await commandLine(['-token-only', `port=${port}`, 'skip_browser=true'], async (url) => {
    const back = `http://localhost:${port}/oidc/callback`;
    strange = [
      await fetch(`${back}?state=st_x&code=y`),
      await fetch(`http://localhost:${port}/favicon.ico`),
      await fetch(back, { method: 'DELETE' }),
    ].map((r) => r.status);
    return asAlice(url);
  });
  assert.deepEqual(strange, [400, 404, 405]);
  assert.equal(ran.code, 0, ran.err);
});

test('what goes wrong is told', async () => {
  const no = async (args, text, answer) => {
    const ran = await commandLine(['-token-only', ...args], answer);
    assert.equal(ran.code, 2, ran.err);
    assert.ok(ran.err.includes(text), ran.err);
    return ran;
  };
  await no([`port=${port}`, 'skip_browser=true', 'role=none'], 'role "none" could not be found');
  await no([`port=${port}`, 'callbackhost=evil.test'], 'Unable to authorize role "" with redirect_uri "http://evil.test:');
  await no([`port=${port}`, 'skip_browser=perhaps'], 'failed to parse value for "skip_browser"');
  await no(['port=many'], 'the port is no number');
  const taken = net.createServer().listen(port, '127.0.0.1');
  await new Promise((done) => taken.on('listening', done));
  await no([`port=${port}`], 'in use');
  await new Promise((done) => taken.close(done));
  const refused = await no([`port=${port}`, 'skip_browser=true'], 'Provider returned error: access_denied', (url) => {
    const state = new URL(url).searchParams.get('state');
    const back = new URLSearchParams({ state, error: 'access_denied', error_description: '<b>no</b>' });
    return fetch(`http://localhost:${port}/oidc/callback?${back}`).then((r) => r.text());
  });
  assert.ok(refused.shown.includes('&lt;b&gt;no&lt;/b&gt;'), refused.shown);
});

test('a provider that posts', async () => {
  await mount('posted', { oidc_response_mode: 'form_post' });
  const ran = await commandLine(['-path=posted', '-token-only', `port=${port}`, 'skip_browser=true'], asAlice);
  assert.equal(ran.code, 0, ran.err);
  const { data } = await good('GET', 'auth/token/lookup-self', { token: ran.out.trim() });
  assert.equal(data.display_name, 'posted-alice');
});

test('a browser that comes back to the server', async () => {
  const allowed_redirect_uris = [`${address}/v1/auth/direct/oidc/callback`];
  await mount('direct', {}, { callback_mode: 'direct', poll_interval: 1, allowed_redirect_uris });
  const args = ['-path=direct', '-token-only', 'skip_browser=true'];
  const ran = await commandLine([...args, 'callbackmode=direct'], asAlice);
  assert.equal(ran.code, 0, ran.err);
  assert.ok(ran.shown.url.startsWith(address) && ran.shown.status === 200);
  assert.ok(!ran.shown.page.includes('hvs.'), 'the browser gets no token');
  const { data } = await good('GET', 'auth/token/lookup-self', { token: ran.out.trim() });
  assert.equal(data.display_name, 'direct-alice');
  const begun = await good('PUT', 'auth/direct/oidc/auth_url', {
    token: '',
    body: { redirect_uri: allowed_redirect_uris[0], client_nonce: 'n' },
  });
  const early = await call('PUT', 'auth/direct/oidc/poll', {
    token: '',
    body: { state: begun.data.state, client_nonce: 'n' },
  });
  assert.deepEqual([early.status, early.json.errors], [400, ['authorization_pending']]);
});

test('the code is for one login, and only with what the client knows', async () => {
  const redirect_uri = `http://localhost:${port}/oidc/callback`;
  const begun = await good('PUT', 'auth/oidc/oidc/auth_url', { token: '', body: { redirect_uri, client_nonce: 'n' } });
  // the browser's way back is caught by the test
  const server = (await import('node:http')).createServer((_, response) => response.end('caught'));
  await new Promise((done) => server.listen(port, 'localhost', done));
  const caught = await visit(begun.data.auth_url, provider.issuer, 'bob');
  await new Promise((done) => (server.closeAllConnections(), server.close(done)));
  const back = new URL(caught.url).search;
  const come = (nonce) => call('GET', `auth/oidc/oidc/callback${back}&client_nonce=${nonce}`, { token: '' });
  assert.equal((await come('other')).status, 400);
  const login = await come('n');
  assert.equal(login.status, 200, login.text);
  assert.equal(login.json.auth.metadata.full, 'bob of the tests');
  const again = await come('n');
  assert.deepEqual(again.json.errors, ['Vault login failed. Expired or missing OAuth state.']);
});
