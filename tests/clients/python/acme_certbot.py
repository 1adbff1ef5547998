"""ACME by certbot: HTTP-01 with its own web server, DNS-01 for a wildcard name through its hooks."""

import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import unittest

import requests
from cryptography import x509

from suite import ADDRESS, Case

# below 127.0.0.0/8 this suite's own address, so that the ports of the protocol are free there
HOST = f"127.118.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"


def may_bind():
    try:
        with socket.create_server((HOST, 80)):
            return True
    except PermissionError:
        return False


def question(packet):
    """Name, type and end of the one question."""
    at, labels = 12, []
    while packet[at]:
        labels.append(packet[at + 1 : at + 1 + packet[at]].decode().lower())
        at += 1 + packet[at]
    return ".".join(labels), struct.unpack(">H", packet[at + 1 : at + 3])[0], at + 5


class Names(threading.Thread):
    """Every name has this host's address; texts are the lines of the file of their name, which certbot's hook writes."""

    def __init__(self, texts):
        super().__init__(daemon=True)
        self.texts = texts
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((HOST, 0))

    def run(self):
        while True:
            packet, sender = self.socket.recvfrom(4096)
            name, kind, end = question(packet)
            data = []
            if kind == 1:
                data = [socket.inet_aton(HOST)]
            elif kind == 16 and (self.texts / name).exists():
                data = [bytes([len(t)]) + t.encode() for t in (self.texts / name).read_text().split()]
            out = packet[:2] + struct.pack(">HHHHH", 0x8180, 1, len(data), 0, 0) + packet[12:end]
            for one in data:
                out += struct.pack(">HHHIH", 0xC00C, kind, 1, 1, len(one)) + one
            self.socket.sendto(out, sender)


@unittest.skipUnless(may_bind(), "ports below 1024 are not for this user")
class Certbot(Case):
    def setUp(self):
        super().setUp()
        self.mount = self.engine("pki", config={"max_lease_ttl": "87600h"})
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = pathlib.Path(folder.name)
        texts = self.home / "texts"
        texts.mkdir()
        names = Names(texts)
        names.start()
        host, port = names.socket.getsockname()
        self.write("root/generate/internal", common_name="Root", key_type="ec", ttl="8760h")
        self.write("config/cluster", path=f"{ADDRESS}/v1/{self.mount}")
        self.write("config/acme", enabled=True, dns_resolver=f"{host}:{port}", permitted_address_ranges=f"{HOST}/32")
        self.write("roles/web", allowed_domains="example.com", allow_subdomains=True, key_type="any")

    def write(self, where, /, **body):
        self.root.write_data(f"{self.mount}/{where}", data=body)

    def certbot(self, directory, *words):
        done = subprocess.run(
            [os.path.join(os.path.dirname(sys.executable), "certbot"), *words, "--non-interactive"]
            + ["--server", f"{ADDRESS}/v1/{self.mount}/{directory}/directory", "--no-random-sleep-on-renew"]
            + [f"--{d}-dir={self.home / d}" for d in ("config", "work", "logs")],
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def got(self, name):
        chain = (self.home / "config/live" / name / "fullchain.pem").read_bytes()
        leaf, root = x509.load_pem_x509_certificates(chain)
        leaf.verify_directly_issued_by(root)
        served = requests.get(f"{ADDRESS}/v1/{self.mount}/ca/pem", timeout=30).content
        self.assertEqual(root, x509.load_pem_x509_certificate(served))
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return sorted(names.get_values_for_type(x509.DNSName))

    def test_http(self):
        self.certbot("acme", "register", "--agree-tos", "--register-unsafely-without-email")
        self.certbot("acme", "certonly", "--standalone", f"--http-01-address={HOST}", "-d", "a.example.com,b.example.com")
        self.assertEqual(self.got("a.example.com"), ["a.example.com", "b.example.com"])
        self.certbot("acme", "renew", "--force-renewal", f"--http-01-address={HOST}")
        self.certbot("acme", "revoke", "--cert-name", "a.example.com", "--no-delete-after-revoke")
        self.assertEqual(len(self.root.list(f"{self.mount}/certs/revoked")["data"]["keys"]), 1)

    def test_wildcard_by_dns(self):
        hook = f"echo $CERTBOT_VALIDATION >> {self.home}/texts/_acme-challenge.$CERTBOT_DOMAIN"
        self.certbot(
            "roles/web/acme",
            *("certonly", "--agree-tos", "--register-unsafely-without-email", "--manual", "--preferred-challenges=dns"),
            *(f"--manual-auth-hook={hook}", "-d", "*.w.example.com,w.example.com"),
        )
        self.assertEqual(self.got("w.example.com"), ["*.w.example.com", "w.example.com"])


if __name__ == "__main__":
    unittest.main()
