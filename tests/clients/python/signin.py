"""Ways to sign in through hvac whose other half is made here: an issuer of tokens, a cluster that reviews them, an
authority for client certificates; and password policies."""

import datetime
import http.server
import json
import os
import re
import socket
import subprocess
import tempfile
import threading
import time

import hvac
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hvac import exceptions as errors

from suite import BINARY, PATIENCE_S, Case, client, name


def pem_of(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


class Jwt(Case):
    def setUp(self):
        super().setUp()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.mount = self.method("jwt")
        public = self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
        self.root.auth.jwt.configure(jwt_validation_pubkeys=public, bound_issuer="https://ci.test", path=self.mount)

    def token(self, **claims):
        now = int(time.time())
        usual = {"iss": "https://ci.test", "sub": "pipeline", "aud": "vault", "iat": now, "exp": now + 600}
        return jwt.encode({**usual, **claims}, self.key, algorithm="ES256")

    def login(self, **claims):
        return client(None).auth.jwt.jwt_login("ci", self.token(**claims), use_token=False, path=self.mount)["auth"]

    def role(self, **more):
        self.root.auth.jwt.create_role(
            "ci", "sub", ["http://localhost:8250/oidc/callback"], role_type="jwt", bound_audiences=["vault"],
            path=self.mount, **more)

    def test_life(self):
        self.role(token_policies=["deploy"], groups_claim="groups", claim_mappings={"repo": "repository"})
        self.assertEqual(self.root.auth.jwt.list_roles(path=self.mount)["data"]["keys"], ["ci"])
        auth = self.login(groups=["builders"], repo="app")
        self.assertEqual(auth["policies"], ["default", "deploy"])
        self.assertEqual(auth["metadata"], {"role": "ci", "repository": "app"})
        self.assertTrue(auth["entity_id"])
        # the group of the token is a group of ours
        accessor = self.root.sys.list_auth_methods()["data"][f"{self.mount}/"]["accessor"]
        group = self.root.secrets.identity.create_or_update_group(
            name("builders"), group_type="external", policies=["build"])["data"]["id"]
        self.root.secrets.identity.create_or_update_group_alias(
            "builders", mount_accessor=accessor, canonical_id=group)
        self.assertEqual(self.login(groups=["builders"], repo="app")["identity_policies"], ["build"])
        self.assertEqual(self.login(groups=[], repo="app").get("identity_policies"), None)
        self.root.auth.jwt.delete_role("ci", path=self.mount)
        self.refused(errors.InvalidRequest, 'role "ci" could not be found', self.login)

    def test_what_is_refused(self):
        self.role(bound_claims={"ref": ["main"]}, token_type="batch")
        self.assertEqual(self.login(ref="main")["token_type"], "batch")
        for claims, text in [
            ({"ref": "fork"}, "does not match any associated bound claim values"),
            ({"ref": "main", "aud": "other"}, "audience claim does not match"),
            ({"ref": "main", "iss": "https://evil.test"}, "invalid issuer (iss) claim"),
            ({"ref": "main", "exp": 1_000_000_000}, "token is expired"),
        ]:
            self.refused(errors.InvalidRequest, text, self.login, **claims)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.refused(errors.InvalidRequest, "no known key", self.login, ref="main")


class Kubernetes(Case):
    """A cluster's TokenReview endpoint, as far as a login needs it."""

    def setUp(self):
        super().setUp()
        reviews = self.reviews = []

        class Api(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                reviews.append((self.path, self.headers["authorization"], body["spec"]))
                account = jwt.decode(body["spec"]["token"], options={"verify_signature": False})["kubernetes.io"]
                user = "system:serviceaccount:{namespace}:{serviceaccount[name]}".format(**account)
                status = {"authenticated": True, "user": {"username": user, "uid": account["serviceaccount"]["uid"]}}
                answer = json.dumps({"status": status}).encode()
                self.send_response(201)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.mount = self.method("kubernetes")
        self.root.auth.kubernetes.configure(
            f"http://127.0.0.1:{server.server_port}", token_reviewer_jwt="reviewer", mount_point=self.mount)

    def login(self, namespace="prod", account="web"):
        claims = {"kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account, "uid": "u1"}}}
        token = jwt.encode(claims, "the cluster's own key, 32 bytes..", algorithm="HS256")
        return client(None).auth.kubernetes.login("web", token, use_token=False, mount_point=self.mount)["auth"]

    def test_life(self):
        k8s = self.root.auth.kubernetes
        k8s.create_role("web", ["web"], ["prod"], ttl="10m", policies=["app"], mount_point=self.mount)
        self.assertEqual(k8s.list_roles(mount_point=self.mount)["keys"], ["web"])
        auth = self.login()
        self.assertEqual((auth["policies"], auth["lease_duration"]), (["app", "default"], 600))
        self.assertEqual(auth["metadata"]["service_account_name"], "web")
        path, authorization, _ = self.reviews[0]
        self.assertEqual((path, authorization), ("/apis/authentication.k8s.io/v1/tokenreviews", "Bearer reviewer"))
        self.refused(errors.Forbidden, "service account name not authorized", self.login, account="db")
        self.refused(errors.Forbidden, "namespace not authorized", self.login, namespace="dev")
        self.assertEqual(len(self.reviews), 1, "nobody is asked about an account that may not")
        k8s.delete_role("web", mount_point=self.mount)
        self.refused(errors.InvalidRequest, 'invalid role name "web"', self.login)


class Certificates(Case):
    """A development server with TLS of its own, and clients with certificates."""

    def setUp(self):
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.address = f"https://127.0.0.1:{port}"
        with open(self.file("log", ""), "w") as log:
            process = subprocess.Popen(
                [BINARY, "server", "-dev", "-dev-tls", "-dev-root-token-id=root", "-dev-no-store-token",
                 f"-dev-tls-cert-dir={self.directory}", f"-dev-listen-address=127.0.0.1:{port}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"HOME": self.directory})
        self.addCleanup(process.wait, PATIENCE_S)
        self.addCleanup(process.terminate)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.caller("root").sys.read_health_status(method="GET")
                break
            except Exception:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.05)

    def file(self, what, text):
        path = os.path.join(self.directory, what)
        with open(path, "w") as out:
            out.write(text)
        return path

    def caller(self, token=None, cert=None):
        return hvac.Client(url=self.address, token=token, cert=cert, timeout=PATIENCE_S,
                           verify=os.path.join(self.directory, "vault-ca.pem"))

    def certificate(self, common_name, by=None):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(by[0].subject if by else subject)
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5)).not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True))
        if by:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        return builder.sign(by[1] if by else key, hashes.SHA256()), key

    def files(self, made):
        which = name("pair")
        pem = made[0].public_bytes(serialization.Encoding.PEM).decode()
        return self.file(f"{which}.pem", pem), self.file(f"{which}.key", pem_of(made[1]))

    def test_life(self):
        authority = self.certificate("authority")
        root = self.caller("root")
        root.sys.enable_auth_method("cert")
        root.auth.cert.create_ca_certificate_role(
            "web", certificate=authority[0].public_bytes(serialization.Encoding.PEM).decode(),
            allowed_common_names="we*", token_policies=["app"])
        self.assertEqual(root.auth.cert.list_certificate_roles()["data"]["keys"], ["web"])
        web = self.files(self.certificate("web", authority))
        auth = self.caller(cert=web).auth.cert.login(use_token=False)["auth"]
        self.assertEqual(auth["policies"], ["app", "default"])
        self.assertEqual((auth["metadata"]["cert_name"], auth["metadata"]["common_name"]), ("web", "web"))
        # this client looks for the files itself; what the server says comes through a plain write
        login = lambda cert: self.caller(cert=cert).write("auth/cert/login")
        self.refused(errors.InvalidRequest, "client certificate must be supplied", login, None)
        db = self.files(self.certificate("db", authority))
        self.refused(errors.InvalidRequest, "no chain matching all constraints", login, db)
        stranger = self.files(self.certificate("web", self.certificate("authority")))
        self.refused(errors.InvalidRequest, "invalid certificate", login, stranger)
        # a token is renewed by who holds the certificate
        renew = lambda cert: self.caller(auth["client_token"], cert).auth.token.renew_self()
        self.assertEqual(renew(web)["auth"]["client_token"], auth["client_token"])
        self.refused(errors.InvalidRequest, "client certificate must be supplied", renew, None)


class Passwords(Case):
    def test_policies(self):
        policy = name("pw")
        text = 'length = 20\nrule "charset" { charset = "ab" min-chars = 3 }\nrule "charset" { charset = "01" min-chars = 4 }'
        self.root.write(f"sys/policies/password/{policy}", policy=text)
        self.assertEqual(self.root.read(f"sys/policies/password/{policy}")["data"]["policy"], text)
        made = {self.root.read(f"sys/policies/password/{policy}/generate")["data"]["password"] for _ in range(10)}
        self.assertEqual(len(made), 10)
        for password in made:
            self.assertRegex(password, r"^[ab01]{20}$")
            self.assertGreaterEqual(len(re.findall("[ab]", password)), 3)
            self.assertGreaterEqual(len(re.findall("[01]", password)), 4)
        self.assertIn(policy, self.root.list("sys/policies/password")["data"]["keys"])
        self.refused(errors.InvalidRequest, "passwords must be between 4 and 100 characters", self.root.write,
                     f"sys/policies/password/{policy}", policy='length = 3\nrule "charset" { charset = "ab" }')
        self.root.delete(f"sys/policies/password/{policy}")
        self.assertIsNone(self.root.read(f"sys/policies/password/{policy}"))
