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

test('identity', async () => {
  const accessor = (await root.auths()).data['token/'].accessor;
  const who = name('who');
  const entity = (await root.write('identity/entity', { name: who, policies: 'a', metadata: { team: 'x' } })).data;
  await root.write('identity/entity-alias', { name: who, canonical_id: entity.id, mount_accessor: accessor });
  const group = (await root.write('identity/group', { name: who, member_entity_ids: [entity.id], policies: 'b' })).data;
  const read = (await root.read(`identity/entity/id/${entity.id}`)).data;
  assert.deepEqual([read.name, read.metadata, read.direct_group_ids], [who, { team: 'x' }, [group.id]]);
  assert.equal(read.aliases[0].mount_type, 'token');
  const found = await root.write('identity/lookup/entity', { alias_name: who, alias_mount_accessor: accessor });
  assert.equal(found.data.id, entity.id);
  assert.ok((await root.list('identity/group/name')).data.keys.includes(who));
  await refused(root.write('identity/entity', { name: who, policies: 'root' }), 400, 'policies cannot contain root');
  await root.delete(`identity/entity/id/${entity.id}`);
  await refused(root.read(`identity/entity/id/${entity.id}`), 404);
});

test('jwt', async () => {
  const { generateKeyPairSync, sign } = require('node:crypto');
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const mount = await method('jwt');
  await root.write(`auth/${mount}/config`, {
    jwt_validation_pubkeys: [publicKey.export({ type: 'spki', format: 'pem' })],
    default_role: 'ci',
  });
  await root.write(`auth/${mount}/role/ci`, { role_type: 'jwt', user_claim: 'sub', bound_audiences: ['us'], token_policies: 'a' });
  const part = (v) => Buffer.from(JSON.stringify(v)).toString('base64url');
  const token = (aud) => {
    const text = `${part({ alg: 'RS256' })}.${part({ sub: 'job', aud, exp: Math.floor(Date.now() / 1000) + 60 })}`;
    return `${text}.${sign('sha256', Buffer.from(text), privateKey).toString('base64url')}`;
  };
  const login = await client().write(`auth/${mount}/login`, { jwt: token('us') });
  assert.deepEqual([login.auth.policies, login.auth.metadata], [['a', 'default'], { role: 'ci' }]);
  await refused(client().write(`auth/${mount}/login`, { jwt: token('them') }), 400, 'audience claim does not match');
  await refused(client().write(`auth/${mount}/login`, { jwt: `${token('us')}x` }), 400, 'error validating token');
});

test('a second factor', async () => {
  const { createHmac } = require('node:crypto');
  const mount_point = await method('userpass');
  await root.write(`auth/${mount_point}/users/ann`, { password: 'pw' });
  const login = () => client().userpassLogin({ mount_point, username: 'ann', password: 'pw' });
  const { entity_id } = (await login()).auth;
  const accessor = (await root.auths()).data[`${mount_point}/`].accessor;
  const { method_id } = (await root.write('identity/mfa/method/totp', { issuer: 'node', period: 3600 })).data;
  const made = await root.write('identity/mfa/method/totp/admin-generate', { method_id, entity_id });
  const rule = `identity/mfa/login-enforcement/${mount_point}`;
  await root.write(rule, { mfa_method_ids: [method_id], auth_method_accessors: [accessor] });
  const owed = (await login()).auth;
  assert.equal(owed.client_token, '');
  const { mfa_request_id } = owed.mfa_requirement;
  const bits = [...new URL(made.data.url).searchParams.get('secret')]
    .map((c) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(c).toString(2).padStart(5, '0'))
    .join('');
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 3600_000)));
  const tag = createHmac('sha1', Buffer.from(bits.match(/.{8}/g).map((b) => parseInt(b, 2)))).update(counter).digest();
  const code = String((tag.readUInt32BE(tag[19] & 15) & 0x7fffffff) % 1_000_000).padStart(6, '0');
  const pay = (offer) => client().write('sys/mfa/validate', { mfa_request_id, mfa_payload: { [method_id]: [offer] } });
  await refused(pay(code === '000000' ? '000001' : '000000'), 403, 'failed to satisfy enforcement');
  assert.equal((await pay(code)).auth.entity_id, entity_id);
  await refused(pay(code), 400, 'invalid request ID');
  await root.delete(rule);
});

test('namespaces', async () => {
  const namespace = name('tenant');
  await root.write(`sys/namespaces/${namespace}`, {});
  const inside = vault({ endpoint, token: rootToken, namespace });
  await inside.mount({ mount_point: 'kept', type: 'kv', options: { version: '1' } });
  await inside.write('kept/a', { b: 'c' });
  assert.deepEqual((await root.read(`${namespace}/kept/a`)).data, { b: 'c' });
  await refused(root.read('kept/a'), 404);
  await inside.addPolicy({ name: 'p', rules: 'path "kept/*" { capabilities = ["read"] }' });
  // of this client's own making would be a token taken on
  const { auth } = await vault({ endpoint, token: rootToken, namespace }).tokenCreate({ policies: ['p'] });
  const tenant = vault({ endpoint, token: auth.client_token, namespace });
  assert.deepEqual((await tenant.read('kept/a')).data, { b: 'c' });
  await refused(client(auth.client_token).read('sys/mounts'), 403, 'permission denied');
  await root.delete(`sys/namespaces/${namespace}`);
});

test('quotas and password policies', async () => {
  const mount = await engine({ version: '1' });
  const quota = `sys/quotas/rate-limit/${name('quota')}`;
  await root.write(quota, { rate: 2, path: mount, interval: '1h' });
  assert.equal((await root.read(quota)).data.rate, 2);
  const many = async () => {
    for (let i = 0; i < 5; i++) await root.write(`${mount}/a`, { b: 'c' });
  };
  await refused(many(), 429, 'rate limit quota exceeded');
  await root.delete(quota);
  await root.write(`${mount}/a`, { b: 'c' });
  const policy = `sys/policies/password/${name('pw')}`;
  await root.write(policy, { policy: 'length = 12\nrule "charset" { charset = "xyz" min-chars = 1 }' });
  assert.match((await root.read(`${policy}/generate`)).data.password, /^[xyz]{12}$/);
  await refused(root.write(policy, { policy: 'length = 2' }), 400);
  await root.delete(policy);
});
