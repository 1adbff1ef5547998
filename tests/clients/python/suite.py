"""What a program written against hvac sees.

Driven by `tests/clients/run` with VAULT_ADDR, VAULT_TOKEN (root) and RINGFENCE_BIN. Each case makes its own mounts,
users and policies under names nobody else uses, so that cases neither share state nor depend on an order.
"""

import itertools
import json
import os
import socket
import subprocess
import tempfile
import time
import unittest
import warnings

import hvac
import jwt
import pyotp
from hvac import exceptions as errors

ADDRESS = os.environ["VAULT_ADDR"]
ROOT = os.environ["VAULT_TOKEN"]
BINARY = os.environ["RINGFENCE_BIN"]
PATIENCE_S = 30
_numbers = itertools.count(1)


def name(prefix):
    return f"{prefix}-py{next(_numbers)}"


# a client without a token would take these
os.environ.pop("VAULT_TOKEN")
os.environ["HOME"] = "/nonexistent"


def client(token=ROOT, address=ADDRESS):
    """A client with this token; with none for `None`."""
    return hvac.Client(url=address, token=token, timeout=PATIENCE_S)


class Case(unittest.TestCase):
    def setUp(self):
        warnings.simplefilter("ignore", DeprecationWarning)
        self.root = client()

    def engine(self, kind="kv", **options):
        mount = name(kind)
        self.root.sys.enable_secrets_engine(kind, path=mount, **options)
        self.addCleanup(self.root.sys.disable_secrets_engine, mount)
        return mount

    def method(self, kind, **options):
        mount = name(kind)
        self.root.sys.enable_auth_method(kind, path=mount, **options)
        self.addCleanup(self.root.sys.disable_auth_method, mount)
        return mount

    def policy(self, text):
        policy = name("policy")
        self.root.sys.create_or_update_policy(policy, text)
        self.addCleanup(self.root.sys.delete_policy, policy)
        return policy

    def refused(self, kind, text, call, *args, **kwargs):
        """The call fails with this class of error, and its text says so."""
        with self.assertRaises(kind) as caught:
            call(*args, **kwargs)
        self.assertIn(text, str(caught.exception))


class Status(Case):
    def test_a_ready_server(self):
        self.assertTrue(self.root.sys.is_initialized())
        self.assertFalse(self.root.sys.is_sealed())
        self.assertTrue(self.root.is_authenticated())
        self.assertFalse(client("nobody-knows-this").is_authenticated())
        health = self.root.sys.read_health_status(method="GET")
        self.assertEqual((health["initialized"], health["sealed"], health["standby"]), (True, False, False))
        self.assertEqual(self.root.sys.read_health_status(method="HEAD").status_code, 200)
        seal = self.root.sys.read_seal_status()
        self.assertEqual((seal["type"], seal["t"], seal["n"], seal["progress"]), ("shamir", 1, 1, 0))
        self.assertEqual(seal["version"], health["version"])
        self.assertEqual(seal["cluster_id"], health["cluster_id"])
        self.assertIn("ha_enabled", self.root.sys.read_leader_status())
        self.assertIsInstance(self.root.sys.get_encryption_key_status()["data"]["term"], int)


class KeyValue1(Case):
    def test_the_life_of_a_secret(self):
        kv, mount = self.root.secrets.kv.v1, self.engine(options={"version": "1"})
        secret = {"text": "ü <&>", "large": 9223372036854775807, "nested": {"a": [1, None, True]}}
        kv.create_or_update_secret("app/one", secret, mount_point=mount)
        kv.create_or_update_secret("app/two", {"a": "b"}, mount_point=mount)
        read = kv.read_secret("app/one", mount_point=mount)
        self.assertEqual(read["data"], secret)
        self.assertEqual((read["lease_id"], read["renewable"], read["lease_duration"]), ("", False, 2764800))
        self.assertEqual(kv.list_secrets("app", mount_point=mount)["data"]["keys"], ["one", "two"])
        self.assertEqual(kv.list_secrets("", mount_point=mount)["data"]["keys"], ["app/"])
        kv.delete_secret("app/one", mount_point=mount)
        with self.assertRaises(errors.InvalidPath):
            kv.read_secret("app/one", mount_point=mount)
        with self.assertRaises(errors.InvalidPath):
            kv.list_secrets("nothing", mount_point=mount)

    def test_a_write_without_fields(self):
        mount = self.engine(options={"version": "1"})
        self.refused(errors.InvalidRequest, "missing data fields", self.root.write_data, f"{mount}/a")


class KeyValue2(Case):
    def setUp(self):
        super().setUp()
        self.kv, self.mount = self.root.secrets.kv.v2, self.engine(options={"version": "2"})

    def put(self, path, secret, cas=None):
        answer = self.kv.create_or_update_secret(path, secret, cas=cas, mount_point=self.mount)
        return answer["data"]["version"]

    def get(self, path, version=None, **more):
        more.setdefault("raise_on_deleted_version", True)
        return self.kv.read_secret_version(path, version=version, mount_point=self.mount, **more)["data"]

    def test_versions(self):
        self.assertEqual([self.put("a/b", {"n": n}) for n in range(3)], [1, 2, 3])
        self.assertEqual(self.get("a/b")["data"], {"n": 2})
        self.assertEqual(self.get("a/b", version=1)["data"], {"n": 0})
        metadata = self.get("a/b", version=2)["metadata"]
        self.assertEqual((metadata["version"], metadata["destroyed"], metadata["deletion_time"]), (2, False, ""))
        self.assertIsNone(metadata["custom_metadata"])
        with self.assertRaises(errors.InvalidPath):
            self.get("a/b", version=4)
        with self.assertRaises(errors.InvalidPath):
            self.get("never")

    def test_check_and_set(self):
        self.assertEqual(self.put("a", {"n": 1}, cas=0), 1)
        text = "check-and-set parameter did not match the current version"
        self.refused(errors.InvalidRequest, text, self.put, "a", {"n": 2}, cas=0)
        self.assertEqual(self.put("a", {"n": 2}, cas=1), 2)
        self.kv.configure(cas_required=True, mount_point=self.mount)
        text = "check-and-set parameter required for this call"
        self.refused(errors.InvalidRequest, text, self.put, "a", {"n": 3})
        self.assertEqual(self.get("a")["data"], {"n": 2})

    def test_patch(self):
        self.put("a", {"keep": "1", "change": "2"})
        self.kv.patch("a", {"change": "3", "more": "4"}, mount_point=self.mount)
        self.assertEqual(self.get("a")["data"], {"keep": "1", "change": "3", "more": "4"})
        with self.assertRaises(errors.InvalidPath):
            self.kv.patch("absent", {"a": "b"}, mount_point=self.mount)

    def test_merge_patch(self):
        self.put("a", {"keep": "1", "drop": "2"})
        headers = {"Content-Type": "application/merge-patch+json"}
        send = lambda body, headers: self.root.adapter.request(
            "patch", f"/v1/{self.mount}/data/a", headers=headers, data=json.dumps(body))
        answer = send({"data": {"drop": None, "new": "3"}}, headers)
        self.assertEqual(answer["data"]["version"], 2)
        self.assertEqual(self.get("a")["data"], {"keep": "1", "new": "3"})
        with self.assertRaises(errors.UnexpectedError):
            send({"data": {}}, {"Content-Type": "application/json"})

    def test_delete_undelete_destroy(self):
        for n in range(1, 4):
            self.put("a", {"n": n})
        versions = dict(path="a", mount_point=self.mount)
        self.kv.delete_latest_version_of_secret(**versions)
        with self.assertRaises(errors.InvalidPath):
            self.get("a")
        deleted = self.get("a", raise_on_deleted_version=False)
        self.assertIsNone(deleted["data"])
        self.assertNotEqual(deleted["metadata"]["deletion_time"], "")
        self.kv.undelete_secret_versions(versions=[3], **versions)
        self.assertEqual(self.get("a")["data"], {"n": 3})
        self.kv.delete_secret_versions(versions=[1, 2], **versions)
        self.kv.destroy_secret_versions(versions=[2], **versions)
        self.kv.undelete_secret_versions(versions=[1, 2], **versions)
        self.assertEqual(self.get("a", version=1)["data"], {"n": 1})
        destroyed = self.get("a", version=2, raise_on_deleted_version=False)
        self.assertEqual((destroyed["data"], destroyed["metadata"]["destroyed"]), (None, True))

    def test_metadata(self):
        metadata = dict(path="a/b", mount_point=self.mount)
        self.kv.update_metadata(max_versions=2, custom_metadata={"owner": "me"}, delete_version_after="90m", **metadata)
        for n in range(4):
            self.put("a/b", {"n": n})
        read = self.kv.read_secret_metadata(**metadata)["data"]
        self.assertEqual((read["current_version"], read["oldest_version"], read["max_versions"]), (4, 3, 2))
        self.assertEqual(read["custom_metadata"], {"owner": "me"})
        self.assertEqual(read["delete_version_after"], "1h30m0s")
        self.assertEqual(sorted(read["versions"]), ["3", "4"])
        self.assertEqual(self.get("a/b")["metadata"]["custom_metadata"], {"owner": "me"})
        self.assertEqual(self.kv.list_secrets("", mount_point=self.mount)["data"]["keys"], ["a/"])
        self.assertEqual(self.kv.list_secrets("a", mount_point=self.mount)["data"]["keys"], ["b"])
        self.kv.delete_metadata_and_all_versions(**metadata)
        with self.assertRaises(errors.InvalidPath):
            self.kv.read_secret_metadata(**metadata)
        self.assertEqual(self.put("a/b", {"n": 9}), 1)

    def test_configuration(self):
        def read():
            data = self.kv.read_configuration(mount_point=self.mount)["data"]
            return data["cas_required"], data["delete_version_after"], data["max_versions"]

        self.assertEqual(read(), (False, "0s", 0))
        self.kv.configure(max_versions=5, delete_version_after="3h", mount_point=self.mount)
        self.assertEqual(read(), (False, "3h0m0s", 5))

    def test_the_path_of_version_1(self):
        with self.assertRaises(errors.InvalidPath):
            self.root.read(f"{self.mount}/a") or self.root.secrets.kv.v1.read_secret("a", mount_point=self.mount)

    def test_names_that_need_escaping(self):
        for path in ["with space", "ünïcode", "per%cent", "plus+sign", "a.b~c@d"]:
            self.put(f"odd/{path}", {"path": path})
            self.assertEqual(self.get(f"odd/{path}")["data"], {"path": path})
        keys = self.kv.list_secrets("odd", mount_point=self.mount)["data"]["keys"]
        self.assertEqual(len(keys), 5)
        self.assertIn("with space", keys)
        self.assertIn("ünïcode", keys)


class Mounts(Case):
    def test_engines(self):
        mount = self.engine(description="first", options={"version": "2"}, config={"max_lease_ttl": "72h"})
        listed = self.root.sys.list_mounted_secrets_engines()["data"]
        self.assertEqual(listed[f"{mount}/"]["type"], "kv")
        self.assertEqual(listed[f"{mount}/"]["options"], {"version": "2"})
        self.assertEqual(listed[f"{mount}/"]["config"]["max_lease_ttl"], 72 * 3600)
        self.assertTrue({"sys/", "cubbyhole/", "identity/", "secret/"} <= set(listed))
        tune = lambda **more: self.root.sys.tune_mount_configuration(mount, **more)
        tune(default_lease_ttl="1h", max_lease_ttl="2h", description="second", listing_visibility="unauth")
        tuned = self.root.sys.read_mount_configuration(mount)["data"]
        self.assertEqual((tuned["default_lease_ttl"], tuned["max_lease_ttl"]), (3600, 7200))
        self.assertEqual((tuned["description"], tuned["listing_visibility"]), ("second", "unauth"))
        self.refused(errors.InvalidRequest, "path is already in use", self.root.sys.enable_secrets_engine, "kv", mount)
        self.refused(errors.InvalidRequest, "", self.root.sys.enable_secrets_engine, "no-such-engine", name("x"))

    def test_a_moved_engine_keeps_its_secrets(self):
        old, new = self.engine(options={"version": "1"}), name("moved")
        self.root.secrets.kv.v1.create_or_update_secret("a", {"b": "c"}, mount_point=old)
        self.root.sys.move_backend(old, new)
        self.addCleanup(self.root.sys.disable_secrets_engine, new)
        deadline = time.monotonic() + PATIENCE_S
        while f"{new}/" not in self.root.sys.list_mounted_secrets_engines()["data"]:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)
        self.assertEqual(self.root.secrets.kv.v1.read_secret("a", mount_point=new)["data"], {"b": "c"})
        with self.assertRaises(errors.InvalidPath):
            self.root.secrets.kv.v1.read_secret("a", mount_point=old)

    def test_disabling_forgets(self):
        mount = name("kv")
        for _ in range(2):
            self.root.sys.enable_secrets_engine("kv", mount, options={"version": "1"})
            with self.assertRaises(errors.InvalidPath):
                self.root.secrets.kv.v1.read_secret("a", mount_point=mount)
            self.root.secrets.kv.v1.create_or_update_secret("a", {"b": "c"}, mount_point=mount)
            self.root.sys.disable_secrets_engine(mount)
        self.refused(errors.InvalidPath, "no handler for route", self.root.secrets.kv.v1.read_secret, "a", mount)

    def test_methods(self):
        mount = self.method("userpass", description="people")
        listed = self.root.sys.list_auth_methods()["data"]
        self.assertEqual(listed[f"{mount}/"]["type"], "userpass")
        self.assertTrue(listed[f"{mount}/"]["accessor"].startswith("auth_userpass_"))
        self.assertEqual(listed["token/"]["type"], "token")
        self.assertIn("token_type", listed["token/"]["config"])
        self.root.sys.tune_auth_method(mount, default_lease_ttl="10m", max_lease_ttl="20m")
        tuned = self.root.sys.read_auth_method_tuning(mount)["data"]
        self.assertEqual((tuned["default_lease_ttl"], tuned["max_lease_ttl"]), (600, 1200))
        self.root.auth.userpass.create_or_update_user("ann", "pw", mount_point=mount)
        login = client(None).auth.userpass.login("ann", "pw", mount_point=mount)
        self.assertEqual(login["auth"]["lease_duration"], 600)


class Policies(Case):
    def test_life(self):
        text = 'path "secret/data/x" { capabilities = ["read"] }'
        policy = self.policy(text)
        self.assertIn(policy, self.root.sys.list_policies()["data"]["policies"])
        self.assertIn(policy, self.root.sys.list_acl_policies()["data"]["keys"])
        self.assertEqual(self.root.sys.read_policy(policy)["data"]["rules"], text)
        self.assertEqual(self.root.sys.read_acl_policy(policy)["data"]["policy"], text)
        self.assertEqual(self.root.get_policy(policy), text)
        self.root.sys.create_or_update_acl_policy(policy, {"path": {"secret/data/y": {"capabilities": ["list"]}}})
        self.assertEqual(self.root.sys.get_capabilities(["secret/data/y"], token=self.token(policy))["data"]
                         ["capabilities"], ["list"])
        self.root.sys.delete_policy(policy)
        with self.assertRaises(errors.InvalidPath):
            self.root.sys.read_policy(policy)
        self.refused(errors.InvalidRequest, "capability", self.root.sys.create_or_update_policy, policy,
                     'path "a" { capabilities = ["fly"] }')
        self.refused(errors.InvalidRequest, "root", self.root.sys.delete_policy, "root")

    def token(self, *policies):
        return self.root.auth.token.create(policies=list(policies))["auth"]["client_token"]

    def test_enforcement(self):
        mount = self.engine(options={"version": "2"})
        policy = self.policy(f"""
            path "{mount}/data/team/*"      {{ capabilities = ["create", "read", "update"] }}
            path "{mount}/data/team/hidden" {{ capabilities = ["deny"] }}
            path "{mount}/metadata/+/"      {{ capabilities = ["list"] }}""")
        user = client(self.token(policy))
        put = lambda path: user.secrets.kv.v2.create_or_update_secret(path, {"a": "b"}, mount_point=mount)
        put("team/one")
        self.assertEqual(user.secrets.kv.v2.list_secrets("team", mount_point=mount)["data"]["keys"], ["one"])
        for refused in [
            lambda: put("team/hidden"),
            lambda: put("other"),
            lambda: user.secrets.kv.v2.delete_latest_version_of_secret("team/one", mount_point=mount),
            lambda: user.sys.list_mounted_secrets_engines(),
        ]:
            self.refused(errors.Forbidden, "permission denied", refused)

    def test_capabilities(self):
        policy = self.policy("""
            path "caps/a" { capabilities = ["update", "read"] }
            path "caps/b/*" { capabilities = ["list", "sudo"] }""")
        made = self.root.auth.token.create(policies=[policy])["auth"]
        paths = ["caps/a", "caps/b/c", "caps/none"]
        expected = {"caps/a": ["read", "update"], "caps/b/c": ["list", "sudo"], "caps/none": ["deny"]}
        for answer in [
            self.root.sys.get_capabilities(paths, token=made["client_token"]),
            self.root.sys.get_capabilities(paths, accessor=made["accessor"]),
            client(made["client_token"]).sys.get_capabilities(paths),
        ]:
            self.assertEqual({p: answer["data"][p] for p in paths}, expected)
            self.assertEqual({p: answer[p] for p in paths}, expected)
        self.assertEqual(self.root.sys.get_capabilities(["x"])["capabilities"], ["root"])


class Userpass(Case):
    def test_life(self):
        mount, users = self.method("userpass"), self.root.auth.userpass
        policy = self.policy('path "secret/*" { capabilities = ["read"] }')
        users.create_or_update_user("Bob", "first", policies=[policy], mount_point=mount)
        self.assertEqual(users.list_user(mount_point=mount)["data"]["keys"], ["bob"])
        self.assertEqual(users.read_user("bob", mount_point=mount)["data"]["policies"], [policy])
        user = client(None)
        auth = user.auth.userpass.login("bob", "first", mount_point=mount)["auth"]
        self.assertEqual(auth["policies"], sorted(["default", policy]))
        self.assertEqual(auth["metadata"], {"username": "bob"})
        self.assertTrue(auth["orphan"] and auth["renewable"] and auth["entity_id"])
        self.assertEqual(user.token, auth["client_token"])
        self.assertEqual(user.auth.token.lookup_self()["data"]["display_name"], f"{mount}-bob")
        text = "invalid username or password"
        for who, password in [("bob", "wrong"), ("nobody", "first")]:
            self.refused(errors.InvalidRequest, text, client(None).auth.userpass.login, who, password,
                         mount_point=mount)
        users.update_password_on_user("bob", "second", mount_point=mount)
        self.refused(errors.InvalidRequest, text, client(None).auth.userpass.login, "bob", "first", mount_point=mount)
        client(None).auth.userpass.login("bob", "second", mount_point=mount)
        users.delete_user("bob", mount_point=mount)
        with self.assertRaises(errors.InvalidPath):
            users.read_user("bob", mount_point=mount)

    def test_disabling_the_method_ends_its_tokens(self):
        mount = self.method("userpass")
        self.root.auth.userpass.create_or_update_user("ann", "pw", mount_point=mount)
        user = client(None)
        user.auth.userpass.login("ann", "pw", mount_point=mount)
        user.auth.token.lookup_self()
        self.root.sys.disable_auth_method(mount)
        with self.assertRaises(errors.Forbidden):
            user.auth.token.lookup_self()


class Identity(Case):
    def person(self):
        """A user with an entity: mount, accessor, a client that logged in, id of the entity."""
        mount = self.method("userpass")
        self.root.auth.userpass.create_or_update_user("ann", "pw", mount_point=mount)
        user = client(None)
        entity = user.auth.userpass.login("ann", "pw", mount_point=mount)["auth"]["entity_id"]
        self.addCleanup(self.root.secrets.identity.delete_entity, entity)
        return mount, self.root.sys.list_auth_methods()["data"][f"{mount}/"]["accessor"], user, entity

    def test_entities_and_aliases(self):
        store = self.root.secrets.identity
        _, accessor, _, _ = self.person()
        who = name("entity")
        made = store.create_or_update_entity(name=who, metadata={"team": "blue"}, policies=["a"])["data"]
        self.assertEqual(store.create_or_update_entity_by_name(name=who, metadata={"team": "red"}).status_code, 204)
        page = store.read_entity(entity_id=made["id"])["data"]
        self.assertEqual((page["name"], page["metadata"], page["policies"]), (who, {"team": "red"}, ["a"]))
        self.assertIn(who, store.list_entities_by_name()["data"]["keys"])
        self.assertIn(made["id"], store.list_entities()["data"]["keys"])
        alias = store.create_or_update_entity_alias(name="bob", canonical_id=made["id"], mount_accessor=accessor)["data"]
        found = store.lookup_entity(alias_name="bob", alias_mount_accessor=accessor)["data"]
        self.assertEqual((found["id"], found["aliases"][0]["id"]), (made["id"], alias["id"]))
        self.assertEqual(store.read_entity_alias(alias_id=alias["id"])["data"]["mount_type"], "userpass")
        self.assertIn(alias["id"], store.list_entity_aliases()["data"]["keys"])
        self.assertEqual(store.lookup_entity(name="nobody").status_code, 204)
        self.refused(errors.InvalidRequest, "policies cannot contain root",
                     store.create_or_update_entity, name=who, policies=["Root "])
        store.delete_entity_alias(alias_id=alias["id"])
        store.delete_entity_by_name(name=who)
        with self.assertRaises(errors.InvalidPath):
            store.read_entity_by_name(name=who)

    def test_merging(self):
        store = self.root.secrets.identity
        _, _, _, entity = self.person()
        to = store.create_or_update_entity(name=name("to"))["data"]["id"]
        self.addCleanup(store.delete_entity, to)
        store.merge_entities(from_entity_ids=[entity], to_entity_id=to)
        self.assertEqual(store.read_entity(entity_id=to)["data"]["merged_entity_ids"], [entity])

    def test_groups(self):
        store = self.root.secrets.identity
        _, accessor, user, entity = self.person()
        policy = self.policy('path "identity/group/name/*" { capabilities = ["read"] }')
        inner, outer, outside = name("in"), name("out"), name("ext")
        group = store.create_or_update_group(name=inner, member_entity_ids=[entity])["data"]["id"]
        store.create_or_update_group(name=outer, member_group_ids=[group], policies=[policy])
        mine = user.secrets.identity
        self.assertEqual(mine.read_group_by_name(name=inner)["data"]["member_entity_ids"], [entity])
        self.assertEqual(mine.read_group_by_name(name=outer)["data"]["member_group_ids"], [group])
        self.assertEqual(user.auth.token.lookup_self()["data"]["identity_policies"], [policy])
        self.assertEqual(store.lookup_group(name=inner)["data"]["id"], group)
        store.update_group(group_id=group, name=inner, member_entity_ids=[])
        with self.assertRaises(errors.Forbidden):
            mine.read_group_by_name(name=inner)
        external = store.create_or_update_group(name=outside, group_type="external")["data"]["id"]
        alias = store.create_or_update_group_alias(name="x", mount_accessor=accessor, canonical_id=external)["data"]["id"]
        self.assertEqual(store.read_group_alias(alias_id=alias)["data"]["canonical_id"], external)
        self.assertIn(alias, store.list_group_aliases()["data"]["keys"])
        for one in (inner, outer, outside):
            store.delete_group_by_name(name=one)

    def test_identity_tokens(self):
        store = self.root.secrets.identity
        _, _, user, entity = self.person()
        policy = self.policy('path "identity/oidc/token/*" { capabilities = ["read"] }')
        store.update_entity(entity_id=entity, policies=[policy], metadata={"team": "blue"})
        published = f"{ADDRESS}/v1/identity/oidc/.well-known/keys"
        for algorithm in ("RS256", "ES384", "EdDSA"):
            key, role = name("key"), name("role")
            store.create_named_key(name=key, algorithm=algorithm, allowed_client_ids=["*"])
            store.create_or_update_role(name=role, key=key, client_id=role, ttl="1h",
                                        template='{"team": {{identity.entity.metadata.team}}}')
            token = user.secrets.identity.generate_signed_id_token(name=role)["data"]["token"]
            public = jwt.PyJWKClient(published).get_signing_key_from_jwt(token).key
            claims = jwt.decode(token, public, algorithms=[algorithm], audience=role)
            self.assertEqual((claims["sub"], claims["team"], claims["namespace"]), (entity, "blue", "root"))
            self.assertTrue(store.introspect_signed_id_token(token=token, client_id=role)["active"])
            store.rotate_named_key(name=key, verification_ttl="1h")
            jwt.decode(token, jwt.PyJWKClient(published).get_signing_key_from_jwt(token).key,
                       algorithms=[algorithm], audience=role)
            self.refused(errors.InvalidRequest, "currently referenced by these roles", store.delete_named_key, name=key)
            store.delete_role(name=role)
            store.delete_named_key(name=key)
        self.assertTrue(store.read_well_known_configurations()["jwks_uri"].endswith("/keys"))

    def test_a_second_factor(self):
        mount, accessor, user, entity = self.person()
        rule = name("rule")
        method = self.root.write("identity/mfa/method/totp", issuer="ringfence", algorithm="SHA256", digits=8,
                                 period=120)["data"]["method_id"]
        made = self.root.write("identity/mfa/method/totp/admin-generate", method_id=method, entity_id=entity)["data"]
        self.root.write(f"identity/mfa/login-enforcement/{rule}", mfa_method_ids=[method],
                        auth_method_accessors=[accessor])
        codes = pyotp.parse_uri(made["url"])
        login = client(None).auth.userpass.login("ann", "pw", mount_point=mount, use_token=False)["auth"]
        self.assertEqual(login["client_token"], "")
        request = login["mfa_requirement"]["mfa_request_id"]
        code = codes.now()
        validate = client(None).write
        self.refused(errors.Forbidden, "failed to satisfy enforcement", validate, "sys/mfa/validate",
                     mfa_request_id=request, mfa_payload={method: [" " + code]})
        auth = validate("sys/mfa/validate", mfa_request_id=request, mfa_payload={method: [code]})["auth"]
        self.assertEqual(auth["entity_id"], entity)
        self.assertTrue(client(auth["client_token"]).is_authenticated())
        self.root.delete(f"identity/mfa/login-enforcement/{rule}")
        self.root.delete(f"identity/mfa/method/totp/{method}")


class Approle(Case):
    def setUp(self):
        super().setUp()
        self.mount, self.roles = self.method("approle"), self.root.auth.approle

    def role(self, **fields):
        role = name("role")
        self.roles.create_or_update_approle(role, mount_point=self.mount, **fields)
        return role, self.roles.read_role_id(role, mount_point=self.mount)["data"]["role_id"]

    def login(self, role_id, secret_id):
        return client(None).auth.approle.login(role_id, secret_id, mount_point=self.mount)["auth"]

    def test_life(self):
        role, role_id = self.role(token_policies=["reader"], token_ttl="10m", token_max_ttl="1h")
        self.assertEqual(self.roles.list_roles(mount_point=self.mount)["data"]["keys"], [role])
        read = self.roles.read_role(role, mount_point=self.mount)["data"]
        self.assertEqual((read["token_policies"], read["token_ttl"], read["bind_secret_id"]), (["reader"], 600, True))
        made = self.roles.generate_secret_id(role, metadata={"host": "h1"}, mount_point=self.mount)["data"]
        auth = self.login(role_id, made["secret_id"])
        self.assertEqual(auth["policies"], ["default", "reader"])
        self.assertEqual((auth["lease_duration"], auth["token_type"]), (600, "service"))
        self.assertEqual(auth["metadata"], {"role_name": role, "host": "h1"})
        text = "invalid role or secret ID"
        self.refused(errors.InvalidRequest, text, self.login, role_id, "no-such-secret-id")
        self.refused(errors.InvalidRequest, text, self.login, "no-such-role", made["secret_id"])
        self.roles.update_role_id(role, "chosen", mount_point=self.mount)
        self.login("chosen", made["secret_id"])
        self.roles.delete_role(role, mount_point=self.mount)
        with self.assertRaises(errors.InvalidPath):
            self.roles.read_role(role, mount_point=self.mount)

    def test_secret_ids(self):
        role, role_id = self.role(secret_id_num_uses=2, secret_id_ttl="1h")
        at = dict(role_name=role, mount_point=self.mount)
        made = self.roles.generate_secret_id(**at)["data"]
        self.assertEqual((made["secret_id_ttl"], made["secret_id_num_uses"]), (3600, 2))
        listed = self.roles.list_secret_id_accessors(**at)["data"]["keys"]
        self.assertEqual(listed, [made["secret_id_accessor"]])
        self.assertEqual(self.roles.read_secret_id(secret_id=made["secret_id"], **at)["data"]["secret_id_num_uses"], 2)
        found = self.roles.read_secret_id_accessor(secret_id_accessor=made["secret_id_accessor"], **at)["data"]
        self.assertEqual(found["secret_id_accessor"], made["secret_id_accessor"])
        for _ in range(2):
            self.login(role_id, made["secret_id"])
        self.refused(errors.InvalidRequest, "invalid role or secret ID", self.login, role_id, made["secret_id"])
        custom = self.roles.create_custom_secret_id(secret_id="my-own-secret-id", **at)["data"]
        self.login(role_id, custom["secret_id"])
        self.roles.destroy_secret_id_accessor(secret_id_accessor=custom["secret_id_accessor"], **at)
        with self.assertRaises(errors.InvalidRequest):
            self.login(role_id, custom["secret_id"])
        with self.assertRaises(errors.InvalidPath):
            self.roles.read_secret_id_accessor(secret_id_accessor="no-such-accessor", **at)

    def test_batch_tokens(self):
        role, role_id = self.role(token_type="batch", token_ttl="10m")
        made = self.roles.generate_secret_id(role, mount_point=self.mount)["data"]
        auth = self.login(role_id, made["secret_id"])
        self.assertTrue(auth["client_token"].startswith("hvb."))
        self.assertEqual((auth["token_type"], auth["accessor"], auth["renewable"]), ("batch", "", False))
        user = client(auth["client_token"])
        self.assertEqual(user.auth.token.lookup_self()["data"]["type"], "batch")
        self.refused(errors.InvalidRequest, "batch tokens cannot be renewed", user.auth.token.renew_self)
        self.refused(errors.InvalidRequest, "batch tokens cannot be revoked", self.root.auth.token.revoke,
                     auth["client_token"])

    def test_a_wrapped_secret_id(self):
        role, role_id = self.role()
        wrapped = self.roles.generate_secret_id(role, wrap_ttl="60s", mount_point=self.mount)["wrap_info"]
        self.assertEqual(wrapped["ttl"], 60)
        self.assertTrue(wrapped["wrapped_accessor"])
        made = client(wrapped["token"]).sys.unwrap()["data"]
        self.assertEqual(made["secret_id_accessor"], wrapped["wrapped_accessor"])
        self.login(role_id, made["secret_id"])


class Tokens(Case):
    def test_create_and_look_up(self):
        made = self.root.auth.token.create(
            policies=["a", "B", "a"], meta={"k": "v"}, ttl="1h", explicit_max_ttl="2h", display_name="my app")["auth"]
        self.assertTrue(made["client_token"].startswith("hvs."))
        self.assertEqual(made["policies"], ["a", "b", "default"])
        self.assertEqual((made["lease_duration"], made["orphan"], made["num_uses"]), (3600, False, 0))
        tokens = self.root.auth.token
        for data, ident in [
            (tokens.lookup(made["client_token"])["data"], made["client_token"]),
            (client(made["client_token"]).auth.token.lookup_self()["data"], made["client_token"]),
            (tokens.lookup_accessor(made["accessor"])["data"], ""),
        ]:
            self.assertEqual(data["id"], ident)
            self.assertEqual(data["accessor"], made["accessor"])
            self.assertEqual(data["policies"], ["a", "b", "default"])
            self.assertEqual((data["display_name"], data["meta"]), ("token-my-app", {"k": "v"}))
            self.assertEqual((data["creation_ttl"], data["explicit_max_ttl"]), (3600, 7200))
            self.assertTrue(3590 < data["ttl"] <= 3600 and data["renewable"] and not data["orphan"])
            self.assertEqual((data["type"], data["path"]), ("service", "auth/token/create"))
        self.assertIn(made["accessor"], tokens.list_accessors()["data"]["keys"])
        root = tokens.lookup_self()["data"]
        self.assertEqual((root["policies"], root["ttl"], root["expire_time"]), (["root"], 0, None))
        self.refused(errors.Forbidden, "bad token", tokens.lookup, "no-such-token")
        self.refused(errors.InvalidRequest, "invalid accessor", tokens.lookup_accessor, "no-such-accessor")

    def test_renew(self):
        made = self.root.auth.token.create(policies=["a"], ttl="1h")["auth"]
        tokens, user = self.root.auth.token, client(made["client_token"])
        self.assertEqual(tokens.renew(made["client_token"], increment="2h")["auth"]["lease_duration"], 7200)
        self.assertEqual(user.auth.token.renew_self(increment="30m")["auth"]["lease_duration"], 1800)
        by_accessor = tokens.renew_accessor(made["accessor"], increment=3600)["auth"]
        self.assertEqual((by_accessor["lease_duration"], by_accessor["client_token"]), (3600, ""))
        fixed = tokens.create(ttl="1h", renewable=False)["auth"]
        self.assertFalse(fixed["renewable"])
        self.refused(errors.InvalidRequest, "lease is not renewable", tokens.renew, fixed["client_token"])
        periodic = tokens.create(policies=["a"], period="1h")["auth"]
        self.assertEqual(tokens.renew(periodic["client_token"], increment="5h")["auth"]["lease_duration"], 3600)

    def gone(self, token):
        with self.assertRaises(errors.Forbidden):
            client(token).auth.token.lookup_self()

    def family(self):
        """A token, its child, and an orphan it made."""
        policy = self.policy("""
            path "auth/token/create" { capabilities = ["update", "sudo"] }
            path "auth/token/create-orphan" { capabilities = ["update", "sudo"] }""")
        parent = self.root.auth.token.create(policies=[policy])["auth"]["client_token"]
        child = client(parent).auth.token.create()["auth"]["client_token"]
        orphan = client(parent).auth.token.create_orphan()["auth"]
        self.assertTrue(orphan["orphan"])
        return parent, child, orphan["client_token"]

    def test_revoking_takes_the_children(self):
        parent, child, orphan = self.family()
        self.root.auth.token.revoke(parent)
        self.gone(parent)
        self.gone(child)
        client(orphan).auth.token.lookup_self()

    def test_revoking_without_the_children(self):
        parent, child, _ = self.family()
        self.root.auth.token.revoke_and_orphan_children(parent)
        self.gone(parent)
        self.assertTrue(client(child).auth.token.lookup_self()["data"]["orphan"])

    def test_revoking_by_accessor_and_by_itself(self):
        made = self.root.auth.token.create(policies=["a"])["auth"]
        self.root.auth.token.revoke_accessor(made["accessor"])
        self.gone(made["client_token"])
        made = self.root.auth.token.create(policies=["a"])["auth"]
        client(made["client_token"]).auth.token.revoke_self()
        self.gone(made["client_token"])

    def test_a_limited_number_of_uses(self):
        made = self.root.auth.token.create(num_uses=2)["auth"]["client_token"]
        for _ in range(2):
            client(made).auth.token.lookup_self()
        self.gone(made)

    def test_a_token_that_runs_out(self):
        made = self.root.auth.token.create(ttl="1s")["auth"]["client_token"]
        deadline = time.monotonic() + PATIENCE_S
        while client(made).is_authenticated():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.1)
        self.refused(errors.Forbidden, "bad token", self.root.auth.token.lookup, made)

    def test_children_cannot_gain(self):
        policy = self.policy('path "auth/token/create" { capabilities = ["update"] }')
        user = client(self.root.auth.token.create(policies=[policy])["auth"]["client_token"])
        text = "child policies must be subset of parent"
        self.refused(errors.InvalidRequest, text, user.auth.token.create, policies=["other"])
        with self.assertRaises(errors.InvalidRequest):
            user.auth.token.create(no_parent=True)

    def test_roles(self):
        role, tokens = name("role"), self.root.auth.token
        tokens.create_or_update_role(role, allowed_policies=["a"], orphan=True, token_period="1h")
        self.assertIn(role, tokens.list_roles()["data"]["keys"])
        self.assertEqual(tokens.read_role(role)["data"]["token_period"], 3600)
        made = tokens.create(role_name=role)["auth"]
        self.assertEqual((made["policies"], made["orphan"], made["lease_duration"]), (["a", "default"], True, 3600))
        with self.assertRaises(errors.InvalidRequest):
            tokens.create(role_name=role, policies=["b"])
        tokens.delete_role(role)
        with self.assertRaises(errors.InvalidPath):
            tokens.read_role(role)


class Wrapping(Case):
    def test_once(self):
        info = self.root.sys.wrap({"answer": 42}, ttl=60)["wrap_info"]
        self.assertEqual((info["ttl"], info["creation_path"]), (60, "sys/wrapping/wrap"))
        self.assertEqual(self.root.sys.unwrap(info["token"])["data"], {"answer": 42})
        text = "wrapping token is not valid or does not exist"
        self.refused(errors.InvalidRequest, text, self.root.sys.unwrap, info["token"])
        self.refused(errors.InvalidRequest, text, client(info["token"]).sys.unwrap)

    def test_with_the_token_itself(self):
        info = self.root.sys.wrap({"a": "b"}, ttl=60)["wrap_info"]
        found = client(None).write("sys/wrapping/lookup", token=info["token"])["data"]
        self.assertEqual((found["creation_ttl"], found["creation_path"]), (60, "sys/wrapping/wrap"))
        self.assertEqual(client(info["token"]).sys.unwrap()["data"], {"a": "b"})

    def test_a_wrapped_read(self):
        mount = self.engine(options={"version": "1"})
        self.root.secrets.kv.v1.create_or_update_secret("a", {"b": "c"}, mount_point=mount)
        info = self.root.read(f"{mount}/a", wrap_ttl="5m")["wrap_info"]
        self.assertEqual((info["ttl"], info["creation_path"]), (300, f"{mount}/a"))
        self.assertEqual(self.root.sys.unwrap(info["token"])["data"], {"b": "c"})

    def test_a_wrapped_token(self):
        info = self.root.auth.token.create(policies=["a"], wrap_ttl="60s")["wrap_info"]
        auth = self.root.sys.unwrap(info["token"])["auth"]
        self.assertEqual(auth["accessor"], info["wrapped_accessor"])
        client(auth["client_token"]).auth.token.lookup_self()

    def test_rewrap(self):
        first = self.root.sys.wrap({"a": "b"}, ttl=60)["wrap_info"]["token"]
        second = self.root.write("sys/wrapping/rewrap", token=first)["wrap_info"]
        self.assertEqual((second["ttl"], second["creation_path"]), (60, "sys/wrapping/wrap"))
        with self.assertRaises(errors.InvalidRequest):
            self.root.sys.unwrap(first)
        self.assertEqual(self.root.sys.unwrap(second["token"])["data"], {"a": "b"})


class Leases(Case):
    """No engine here makes leased secrets yet; a token's life is asked of the token."""

    def test_revoking_by_prefix_ends_tokens(self):
        mount = self.method("userpass")
        self.root.auth.userpass.create_or_update_user("ann", "pw", mount_point=mount)
        token = client(None).auth.userpass.login("ann", "pw", mount_point=mount)["auth"]["client_token"]
        client(token).auth.token.lookup_self()
        self.root.sys.revoke_prefix(f"auth/{mount}")
        with self.assertRaises(errors.Forbidden):
            client(token).auth.token.lookup_self()

    def test_no_such_lease(self):
        with self.assertRaises(errors.InvalidPath):
            self.root.sys.list_leases("secret")
        self.refused(errors.InvalidRequest, "invalid lease", self.root.sys.read_lease, "no/such/lease")
        self.refused(errors.InvalidRequest, "lease", self.root.sys.renew_lease, "no/such/lease")
        self.root.sys.revoke_lease("no/such/lease")
        made = self.root.auth.token.create(policies=["default"])["auth"]["client_token"]
        with self.assertRaises(errors.Forbidden):
            client(made).sys.list_leases("secret")


class Audit(Case):
    def test_a_file(self):
        device = name("audit")
        with tempfile.TemporaryDirectory() as directory:
            file = os.path.join(directory, "audit.log")
            self.root.sys.enable_audit_device("file", path=device, options={"file_path": file})
            try:
                listed = self.root.sys.list_enabled_audit_devices()["data"][f"{device}/"]
                self.assertEqual((listed["type"], listed["options"]), ("file", {"file_path": file}))
                secret = name("only-here")
                self.root.secrets.kv.v2.create_or_update_secret("audited", {"password": secret})
                digest = self.root.sys.calculate_hash(device, secret)["data"]["hash"]
            finally:
                self.root.sys.disable_audit_device(device)
            with open(file) as lines:
                text = lines.read()
        self.assertTrue(digest.startswith("hmac-sha256:"))
        self.assertIn(digest, text)
        self.assertNotIn(secret, text)
        entries = [json.loads(line) for line in text.splitlines()]
        writes = [e for e in entries if e["request"]["path"] == "secret/data/audited"]
        self.assertEqual([e["type"] for e in writes], ["request", "response"])
        self.assertEqual(writes[0]["request"]["id"], writes[1]["request"]["id"])
        self.assertEqual(writes[0]["request"]["data"]["data"]["password"], digest)
        self.assertEqual(writes[0]["auth"]["policies"], ["root"])
        self.assertNotIn(f"{device}/", self.root.sys.list_enabled_audit_devices()["data"])


class Refusals(Case):
    def test_classes(self):
        for call, kind in [
            (lambda: client("wrong").secrets.kv.v2.list_secrets(""), errors.Forbidden),
            (lambda: client(None).secrets.kv.v2.list_secrets(""), errors.Forbidden),
            (lambda: self.root.secrets.kv.v1.read_secret("a", mount_point="no-such-mount"), errors.InvalidPath),
            (lambda: self.root.write_data("sys/mounts/x", data={}), errors.InvalidRequest),
            (lambda: self.root.write_data("auth/token/create", data={"ttl": "soon"}), errors.InvalidRequest),
        ]:
            with self.assertRaises(kind):
                call()

    def test_a_cubbyhole_is_private(self):
        one = client(self.root.auth.token.create(policies=["default"])["auth"]["client_token"])
        one.write_data("cubbyhole/a", data={"b": "c"})
        self.assertEqual(one.read("cubbyhole/a")["data"], {"b": "c"})
        self.assertIsNone(self.root.read("cubbyhole/a"))


class OneTimeCodesAndSsh(Case):
    def test_totp_codes_are_good_once(self):
        mount = self.engine("totp")
        made = self.root.write(f"{mount}/keys/k", generate=True, issuer="ringfence", account_name="hvac")["data"]
        other = pyotp.parse_uri(made["url"])
        code = self.root.read(f"{mount}/code/k")["data"]["code"]
        self.assertTrue(other.verify(code, valid_window=1))
        self.assertIs(self.root.write(f"{mount}/code/k", code=code)["data"]["valid"], True)
        self.refused(errors.InvalidRequest, "code already used", self.root.write, f"{mount}/code/k", code=code)

    def test_ssh_signs_and_makes_passwords(self):
        mount = self.engine("ssh")
        public = self.root.write(f"{mount}/config/ca", key_type="ed25519")["data"]["public_key"]
        self.root.write(f"{mount}/roles/ca", key_type="ca", allow_user_certificates=True, allowed_users="*")
        signed = self.root.write(f"{mount}/sign/ca", public_key=public, valid_principals="u")["data"]["signed_key"]
        self.assertTrue(signed.startswith("ssh-ed25519-cert-v01@openssh.com "))
        self.root.write(f"{mount}/roles/otp", key_type="otp", default_user="u", cidr_list="10.0.0.0/8")
        made = self.root.write(f"{mount}/creds/otp", ip="10.1.2.3")
        self.assertTrue(made["lease_id"].startswith(f"{mount}/creds/otp/"))
        answer = client(None).write(f"{mount}/verify", otp=made["data"]["key"])["data"]
        self.assertEqual(answer, {"ip": "10.1.2.3", "role_name": "otp", "username": "u"})


class Transit(Case):
    HELLO = "aGVsbG8="

    def setUp(self):
        super().setUp()
        self.mount = self.engine("transit")
        self.transit = self.root.secrets.transit

    def test_encrypt_rotate_rewrap(self):
        self.transit.create_key("k", mount_point=self.mount)
        sealed = self.transit.encrypt_data("k", plaintext=self.HELLO, mount_point=self.mount)["data"]["ciphertext"]
        self.transit.rotate_key("k", mount_point=self.mount)
        again = self.transit.rewrap_data("k", ciphertext=sealed, mount_point=self.mount)["data"]["ciphertext"]
        self.assertTrue(again.startswith("vault:v2:"))
        for one in (sealed, again):
            opened = self.transit.decrypt_data("k", ciphertext=one, mount_point=self.mount)
            self.assertEqual(opened["data"]["plaintext"], self.HELLO)
        self.transit.update_key_configuration("k", min_decryption_version=2, mount_point=self.mount)
        self.refused(errors.InvalidRequest, "too old", self.transit.decrypt_data, "k", sealed, mount_point=self.mount)
        batch = [{"plaintext": self.HELLO} for _ in range(100)]
        results = self.transit.encrypt_data("k", batch_input=batch, mount_point=self.mount)["data"]["batch_results"]
        self.assertEqual(len(results), 100)

    def test_sign_and_verify(self):
        for kind in ("ed25519", "ecdsa-p256", "rsa-2048"):
            self.transit.create_key(kind, key_type=kind, mount_point=self.mount)
            signature = self.transit.sign_data(kind, self.HELLO, mount_point=self.mount)["data"]["signature"]
            answer = self.transit.verify_signed_data(kind, self.HELLO, signature=signature, mount_point=self.mount)
            self.assertTrue(answer["data"]["valid"])

    def test_data_keys_hmacs_backups(self):
        self.transit.create_key("k", exportable=True, allow_plaintext_backup=True, mount_point=self.mount)
        made = self.transit.generate_data_key("k", key_type="plaintext", mount_point=self.mount)["data"]
        opened = self.transit.decrypt_data("k", ciphertext=made["ciphertext"], mount_point=self.mount)
        self.assertEqual(opened["data"]["plaintext"], made["plaintext"])
        code = self.transit.generate_hmac("k", self.HELLO, mount_point=self.mount)["data"]["hmac"]
        answer = self.transit.verify_signed_data("k", self.HELLO, hmac=code, mount_point=self.mount)
        self.assertTrue(answer["data"]["valid"])
        backup = self.transit.backup_key("k", mount_point=self.mount)["data"]["backup"]
        self.transit.restore_key(backup, name="copy", mount_point=self.mount)
        exported = [self.transit.export_key(n, key_type="encryption-key", mount_point=self.mount)["data"]["keys"]
                    for n in ("k", "copy")]
        self.assertEqual(exported[0], exported[1])
        self.assertEqual(self.transit.list_keys(mount_point=self.mount)["data"]["keys"], ["copy", "k"])


class Ceremony(Case):
    """A durable server of its own: from nothing to sealed, and over a restart."""

    def setUp(self):
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.config = os.path.join(directory.name, "config.json")
        self.log = os.path.join(directory.name, "log")
        with open(self.config, "w") as out:
            json.dump({
                "storage": {"raft": {"path": os.path.join(directory.name, "data"), "node_id": "n1"}},
                "listener": {"tcp": {"address": f"127.0.0.1:{port}", "tls_disable": True}},
                "api_addr": self.address,
                "cluster_addr": "http://127.0.0.1:1",
            }, out)
        self.addCleanup(self.stop)
        self.start()

    def start(self):
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                [BINARY, "server", f"-config={self.config}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return client(None, self.address).sys.read_seal_status()
            except Exception:
                with open(self.log) as log:
                    self.assertIsNone(self.process.poll(), log.read())
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.05)

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE_S)

    def test_init_unseal_seal(self):
        user = client(None, self.address)
        self.assertFalse(user.sys.is_initialized())
        health = lambda: user.sys.read_health_status(method="HEAD").status_code
        self.assertEqual(health(), 501)
        made = user.sys.initialize(secret_shares=3, secret_threshold=2)
        self.assertEqual((len(made["keys"]), len(made["keys_base64"])), (3, 3))
        self.refused(errors.InvalidRequest, "already initialized", user.sys.initialize)
        self.assertEqual(health(), 503)
        user.token = made["root_token"]
        self.refused(errors.VaultDown, "sealed", user.secrets.kv.v2.list_secrets, "")
        status = user.sys.submit_unseal_key(made["keys"][0])
        self.assertEqual((status["sealed"], status["progress"], status["t"], status["n"]), (True, 1, 2, 3))
        self.assertEqual(user.sys.submit_unseal_key(reset=True)["progress"], 0)
        self.assertFalse(user.sys.submit_unseal_keys([made["keys"][0], made["keys_base64"][2]])["sealed"])
        self.assertEqual(health(), 200)
        user.sys.enable_secrets_engine("kv", "kept", options={"version": "2"})
        user.secrets.kv.v2.create_or_update_secret("a", {"b": "c"}, mount_point="kept")
        user.sys.seal()
        self.assertTrue(user.sys.is_sealed())
        self.refused(errors.VaultDown, "sealed", user.secrets.kv.v2.read_secret_version, "a", mount_point="kept")

        self.stop()
        self.start()
        user.sys.submit_unseal_keys(made["keys"][:2])
        read = user.secrets.kv.v2.read_secret_version("a", mount_point="kept", raise_on_deleted_version=True)
        self.assertEqual(read["data"]["data"], {"b": "c"})

        user.sys.rotate_encryption_key()
        self.assertEqual(user.sys.get_encryption_key_status()["data"]["term"], 2)
        started = user.sys.start_rekey(secret_shares=1, secret_threshold=1)
        renewed = user.sys.rekey_multi(made["keys"][1:], started["nonce"])
        self.assertTrue(renewed["complete"])
        user.sys.seal()
        self.assertFalse(user.sys.submit_unseal_key(renewed["keys"][0])["sealed"])

        attempt = user.sys.start_root_token_generation()
        answer = user.sys.generate_root(renewed["keys"][0], attempt["nonce"])
        self.assertTrue(answer["complete"])
        decoded = user.write_data(
            "sys/decode-token", data={"encoded_token": answer["encoded_token"], "otp": attempt["otp"]})
        second = client(decoded["data"]["token"], self.address)
        self.assertEqual(second.auth.token.lookup_self()["data"]["policies"], ["root"])


class Tenants(Case):
    def test_a_namespace_has_a_life_of_its_own(self):
        ns = name("tenant")
        self.root.sys.create_namespace(ns)
        self.assertIn(f"{ns}/", self.root.sys.list_namespaces()["data"]["keys"])
        inside = hvac.Client(url=ADDRESS, token=ROOT, namespace=ns, timeout=PATIENCE_S)
        inside.sys.enable_secrets_engine("kv", "kept", options={"version": "2"})
        inside.sys.enable_auth_method("userpass")
        inside.sys.create_or_update_policy("all", 'path "kept/*" { capabilities = ["create", "update", "read"] }')
        inside.auth.userpass.create_or_update_user("bob", "p", policies="all")
        bob = hvac.Client(url=ADDRESS, namespace=ns, timeout=PATIENCE_S)
        bob.auth.userpass.login("bob", "p")
        bob.secrets.kv.v2.create_or_update_secret("a", {"b": "c"}, mount_point="kept")
        read = bob.secrets.kv.v2.read_secret_version("a", mount_point="kept", raise_on_deleted_version=True)
        self.assertEqual(read["data"]["data"], {"b": "c"})
        self.assertEqual(bob.auth.token.lookup_self()["data"]["namespace_path"], f"{ns}/")
        outside = client(bob.token)
        self.refused(errors.Forbidden, "permission denied", outside.auth.token.lookup_self)
        self.refused(errors.InvalidRequest, "unavailable in namespaces", inside.sys.seal)
        self.root.sys.delete_namespace(ns)
        self.assertRaises((errors.Forbidden, errors.InvalidPath), bob.auth.token.lookup_self)

    def test_a_quota_refuses_and_says_so(self):
        mount, quota = self.engine(options={"version": "1"}), name("quota")
        self.root.sys.create_or_update_quota(quota, rate=2, path=mount, interval="1h")
        self.addCleanup(self.root.sys.delete_quota, quota)
        self.assertEqual(self.root.sys.read_quota(quota)["data"]["path"], f"{mount}/")
        self.assertIn(quota, self.root.sys.list_quotas()["data"]["keys"])
        # an hour may end within the test
        with self.assertRaisesRegex(errors.RateLimitExceeded, "rate limit quota exceeded"):
            for _ in range(5):
                self.root.secrets.kv.v1.create_or_update_secret("a", {"b": "c"}, mount_point=mount)


if __name__ == "__main__":
    unittest.main()
