// The server's API as these suites use it: the status and the JSON, whatever they are.
import assert from 'node:assert/strict';

export const address = process.env.VAULT_ADDR;
const root = process.env.VAULT_TOKEN;

export async function call(method, path, { body, token = root, headers = {}, form } = {}) {
  const response = await fetch(`${address}/v1/${path}`, {
    method,
    redirect: 'manual',
    headers: { ...(token ? { 'X-Vault-Token': token } : {}), ...headers },
    body: form ? new URLSearchParams(form) : body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await response.text();
  let json = null;
  try {
    json = JSON.parse(text);
  } catch {
    // a page
  }
  return { status: response.status, headers: response.headers, json, text };
}

export async function good(method, path, options) {
  const answer = await call(method, path, options);
  assert.ok([200, 204].includes(answer.status), `${method} ${path}: ${answer.status} ${answer.text}`);
  return answer.json;
}
