// What a program written against node-vault sees. Driven by `tests/clients/run` with VAULT_ADDR and VAULT_TOKEN (root).
// Each test makes its own mounts, users and policies.
'use strict';

const test = require('node:test');
const assert = require('node:assert/strict');
const vault = require('node-vault');

const endpoint = process.env.VAULT_ADDR;
const rootToken = process.env.VAULT_TOKEN;
delete process.env.VAULT_TOKEN;

const client = (token) => vault({ endpoint, token });
const root = client(rootToken);
// this client takes on each token that it made or renewed: such calls go through a client of their own
const tokens = () => client(rootToken);
let counted = 0;
const name = (prefix) => `${prefix}-node${++counted}`;

// The call is refused with this status, and the text says why.
const refused = (call, status, text = '') =>
  assert.rejects(call, (e) => {
    assert.equal(e.response?.statusCode, status, e.message);
    assert.ok(e.message.includes(text), e.message);
    return true;
  });

async function engine(options) {
  const mount_point = name('kv');
  await root.mount({ mount_point, type: 'kv', options });
  return mount_point;
}

async function method(type) {
  const mount_point = name(type);
  await root.enableAuth({ mount_point, type });
  return mount_point;
}

test('status', async () => {
  assert.deepEqual(await root.initialized(), { initialized: true });
  const status = await root.status();
  assert.equal(status.sealed, false);
  assert.equal(status.type, 'shamir');
  const health = await root.health();
  assert.deepEqual([health.initialized, health.sealed, health.standby], [true, false, false]);
  assert.equal(typeof (await root.leader()).ha_enabled, 'boolean');
});

test('version 1 secrets', async () => {
  const mount = await engine({ version: '1' });
  await root.write(`${mount}/app/one`, { text: 'ü <&>', nested: { a: [1, null, true] } });
  await root.write(`${mount}/app/two`, { a: 'b' });
  const read = await root.read(`${mount}/app/one`);
  assert.deepEqual(read.data, { text: 'ü <&>', nested: { a: [1, null, true] } });
  assert.equal(read.lease_duration, 2764800);
  assert.deepEqual((await root.list(`${mount}/app`)).data.keys, ['one', 'two']);
  const plain = vault({ endpoint, token: rootToken, noCustomHTTPVerbs: true });
  assert.deepEqual((await plain.list(`${mount}/app`)).data.keys, ['one', 'two']);
  await root.delete(`${mount}/app/one`);
  await refused(root.read(`${mount}/app/one`), 404, 'Status 404');
  await refused(root.write(`${mount}/x`, {}), 400, 'missing data fields');
});

test('version 2 secrets', async () => {
  const mount = await engine({ version: '2' });
  const wrote = await root.write(`${mount}/data/a`, { data: { keep: '1', change: '2' }, options: { cas: 0 } });
  assert.equal(wrote.data.version, 1);
  await refused(root.write(`${mount}/data/a`, { data: {}, options: { cas: 0 } }), 400, 'did not match');
  const patched = await root.update(`${mount}/data/a`, { data: { change: '3', keep: null } });
  assert.equal(patched.data.version, 2);
  assert.deepEqual((await root.read(`${mount}/data/a`)).data.data, { change: '3' });
  assert.deepEqual((await root.read(`${mount}/data/a?version=1`)).data.data, { keep: '1', change: '2' });
  await root.delete(`${mount}/data/a`);
  await refused(root.read(`${mount}/data/a`), 404);
  await root.write(`${mount}/undelete/a`, { versions: [2] });
  assert.deepEqual((await root.read(`${mount}/data/a`)).data.data, { change: '3' });
  await root.destroySecretVersions?.({ mount_point: mount, path: 'a', versions: [1] });
  const metadata = await root.read(`${mount}/metadata/a`);
  assert.equal(metadata.data.current_version, 2);
  assert.deepEqual((await root.list(`${mount}/metadata`)).data.keys, ['a']);
  await root.delete(`${mount}/metadata/a`);
  await refused(root.list(`${mount}/metadata`), 404);
});

test('policies and mounts', async () => {
  const policy = name('policy');
  const rules = 'path "secret/data/x" { capabilities = ["read"] }';
  await root.addPolicy({ name: policy, rules });
  assert.ok((await root.policies()).policies.includes(policy));
  assert.equal((await root.getPolicy({ name: policy })).rules, rules);
  const token = (await tokens().tokenCreate({ policies: [policy] })).auth.client_token;
  await refused(client(token).read('secret/data/y'), 403, 'permission denied');
  await refused(client(token).read('secret/data/x'), 404);
  await root.removePolicy({ name: policy });
  await refused(root.getPolicy({ name: policy }), 404);
  await refused(root.addPolicy({ name: policy, rules: 'path {' }), 400);

  const mount = await engine({ version: '1' });
  await root.write(`${mount}/a`, { b: 'c' });
  assert.equal((await root.mounts()).data[`${mount}/`].type, 'kv');
  await root.unmount({ mount_point: mount });
  await refused(root.read(`${mount}/a`), 404, 'no handler for route');
  assert.equal((await root.auths()).data['token/'].type, 'token');
  assert.deepEqual(Object.keys((await root.audits()).data ?? {}), []);
});

test('userpass', async () => {
  const mount_point = await method('userpass');
  await root.write(`auth/${mount_point}/users/ann`, { password: 'pw', token_policies: ['reader'], token_ttl: '10m' });
  const user = client();
  const login = await user.userpassLogin({ mount_point, username: 'ann', password: 'pw' });
  assert.deepEqual(login.auth.policies, ['default', 'reader']);
  assert.equal(login.auth.lease_duration, 600);
  assert.equal(user.token, login.auth.client_token);
  const self = await user.tokenLookupSelf();
  assert.deepEqual(self.data.meta, { username: 'ann' });
  assert.equal(self.data.display_name, `${mount_point}-ann`);
  const wrong = client().userpassLogin({ mount_point, username: 'ann', password: 'no' });
  await refused(wrong, 400, 'invalid username or password');
  await root.disableAuth({ mount_point });
  await refused(user.tokenLookupSelf(), 403, 'permission denied');
});

test('approle', async () => {
  const mount_point = await method('approle');
  const role_name = name('role');
  await root.addApproleRole({ mount_point, role_name, token_policies: 'a,b', secret_id_num_uses: 1 });
  assert.deepEqual((await root.approleRoles({ mount_point })).data.keys, [role_name]);
  const { role_id } = (await root.getApproleRoleId({ mount_point, role_name })).data;
  const { secret_id } = (await root.getApproleRoleSecret({ mount_point, role_name })).data;
  const user = client();
  const login = await user.approleLogin({ mount_point, role_id, secret_id });
  assert.deepEqual(login.auth.metadata, { role_name });
  await user.tokenRenewSelf();
  await refused(client().approleLogin({ mount_point, role_id, secret_id }), 400, 'invalid role or secret ID');
  await root.deleteApproleRole({ mount_point, role_name });
  await refused(root.getApproleRole({ mount_point, role_name }), 404);
});

test('tokens', async () => {
  const made = (await tokens().tokenCreate({ policies: ['a'], ttl: '1h', meta: { k: 'v' } })).auth;
  assert.deepEqual(made.policies, ['a', 'default']);
  assert.deepEqual((await root.tokenLookup({ token: made.client_token })).data.meta, { k: 'v' });
  assert.equal((await root.tokenLookupAccessor({ accessor: made.accessor })).data.id, '');
  assert.ok((await root.tokenAccessors()).data.keys.includes(made.accessor));
  assert.equal((await tokens().tokenRenew({ token: made.client_token, increment: '2h' })).auth.lease_duration, 7200);
  const orphan = (await tokens().tokenCreateOrphan({ policies: ['a'] })).auth;
  assert.equal(orphan.orphan, true);
  await root.tokenRevoke({ token: made.client_token });
  await root.tokenRevokeAccessor({ accessor: orphan.accessor });
  for (const token of [made.client_token, orphan.client_token]) {
    await refused(client(token).tokenLookupSelf(), 403, 'permission denied');
  }
  const role_name = name('role');
  await root.addTokenRole({ role_name, allowed_policies: 'a', renewable: false });
  assert.ok((await root.tokenRoles()).data.keys.includes(role_name));
  assert.equal((await tokens().tokenCreateRole({ role_name })).auth.renewable, false);
  await root.removeTokenRole({ role_name });
});

test('wrapping', async () => {
  const mount = await engine({ version: '1' });
  await root.write(`${mount}/a`, { b: 'c' });
  const { wrap_info: info } = await root.read(`${mount}/a`, { headers: { 'X-Vault-Wrap-TTL': '60s' } });
  assert.equal(info.ttl, 60);
  assert.deepEqual((await root.unwrap({ token: info.token })).data, { b: 'c' });
  const again = root.unwrap({ token: info.token });
  await refused(again, 400, 'wrapping token is not valid or does not exist');
  const wrapped = await root.write('sys/wrapping/wrap', { x: 1 }, { headers: { 'X-Vault-Wrap-TTL': '60' } });
  assert.deepEqual((await client(wrapped.wrap_info.token).unwrap()).data, { x: 1 });
});

test('a cubbyhole and the help of a path', async () => {
  const token = (await tokens().tokenCreate({ policies: ['default'] })).auth.client_token;
  const user = client(token);
  await user.write('cubbyhole/a', { b: 'c' });
  assert.deepEqual((await user.read('cubbyhole/a')).data, { b: 'c' });
  await refused(root.read('cubbyhole/a'), 404);
  assert.equal(typeof (await root.help('sys/mounts')).help, 'string');
});
