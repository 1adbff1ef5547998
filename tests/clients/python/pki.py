"""The PKI engine through hvac, and what it makes read and verified by pyca/cryptography."""

import base64
import unittest

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID
from hvac import exceptions as errors

from suite import ADDRESS, Case

KINDS = [("rsa", 2048), ("ec", 256), ("ec", 384), ("ec", 521), ("ed25519", 0)]


def certificate(pem):
    return x509.load_pem_x509_certificate(pem.encode())


class Pki(Case):
    def authority(self, kind="ec", bits=256):
        mount = self.engine("pki", config={"max_lease_ttl": "87600h"})
        pki = self.root.secrets.pki
        made = pki.generate_root(
            "internal", "Root", {"key_type": kind, "key_bits": bits, "ttl": "87600h"}, mount_point=mount
        )["data"]
        pki.create_or_update_role(
            "web",
            {"allowed_domains": "example.com", "allow_subdomains": True, "key_type": kind, "key_bits": bits},
            mount_point=mount,
        )
        return mount, certificate(made["certificate"])

    def test_every_kind_of_key(self):
        pki = self.root.secrets.pki
        for kind, bits in KINDS:
            with self.subTest(kind=kind, bits=bits):
                mount, root = self.authority(kind, bits)
                root.verify_directly_issued_by(root)
                leaf = pki.generate_certificate("web", "a.example.com", mount_point=mount)["data"]
                gone = pki.generate_certificate("web", "b.example.com", mount_point=mount)["data"]
                a, b = certificate(leaf["certificate"]), certificate(gone["certificate"])
                a.verify_directly_issued_by(root)
                names = a.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
                self.assertEqual(names.get_values_for_type(x509.DNSName), ["a.example.com"])
                key = serialization.load_pem_private_key(leaf["private_key"].encode(), None)
                self.assertEqual(key.public_key(), a.public_key())
                csr = pki.generate_intermediate("internal", "I", {"key_type": kind, "key_bits": bits}, mount_point=mount)
                self.assertTrue(x509.load_pem_x509_csr(csr["data"]["csr"].encode()).is_signature_valid)
                pki.revoke_certificate(gone["serial_number"], mount_point=mount)
                crl = x509.load_pem_x509_crl(pki.read_crl(mount_point=mount).encode())
                self.assertTrue(crl.is_signature_valid(root.public_key()))
                self.assertIsNotNone(crl.get_revoked_certificate_by_serial_number(b.serial_number))
                self.assertIsNone(crl.get_revoked_certificate_by_serial_number(a.serial_number))
                for one, status in [(a, ocsp.OCSPCertStatus.GOOD), (b, ocsp.OCSPCertStatus.REVOKED)]:
                    self.assertEqual(self.asked(mount, one, root).certificate_status, status)

    def asked(self, mount, one, issuer):
        """By POST and by GET: both agree."""
        request = ocsp.OCSPRequestBuilder().add_certificate(one, issuer, hashes.SHA1()).build()
        der = request.public_bytes(serialization.Encoding.DER)
        url = f"{ADDRESS}/v1/{mount}/ocsp"
        posted = requests.post(url, data=der, headers={"Content-Type": "application/ocsp-request"}, timeout=30)
        self.assertEqual(posted.status_code, 200, posted.text)
        fetched = requests.get(f"{url}/{base64.b64encode(der).decode().replace('/', '%2F')}", timeout=30)
        answers = [ocsp.load_der_ocsp_response(r.content) for r in (posted, fetched)]
        self.assertEqual(answers[0].certificate_status, answers[1].certificate_status)
        return answers[0]

    def test_post_quantum_keys(self):
        for bits, kind in [(44, mldsa.MLDSA44PublicKey), (65, mldsa.MLDSA65PublicKey), (87, mldsa.MLDSA87PublicKey)]:
            with self.subTest(bits=bits):
                mount, root = self.authority("ml-dsa", bits)
                root.public_key().verify(root.signature, root.tbs_certificate_bytes)
                made = self.root.secrets.pki.generate_certificate("web", "a.example.com", mount_point=mount)["data"]
                leaf = certificate(made["certificate"])
                root.public_key().verify(leaf.signature, leaf.tbs_certificate_bytes)
                self.assertIsInstance(leaf.public_key(), kind)
                key = serialization.load_pem_private_key(made["private_key"].encode(), None)
                leaf.public_key().verify(key.sign(b"message"), b"message")
                self.root.secrets.pki.revoke_certificate(made["serial_number"], mount_point=mount)
                crl = x509.load_pem_x509_crl(self.root.secrets.pki.read_crl(mount_point=mount).encode())
                root.public_key().verify(crl.signature, crl.tbs_certlist_bytes)
                self.assertIsNotNone(crl.get_revoked_certificate_by_serial_number(leaf.serial_number))

    def test_pss(self):
        mount, root = self.authority("rsa", 2048)
        self.root.write_data(f"{mount}/roles/pss", data={"allow_any_name": True, "use_pss": True, "ttl": "1h"})
        made = self.root.secrets.pki.generate_certificate("pss", "a.example.com", mount_point=mount)["data"]
        leaf = certificate(made["certificate"])
        self.assertEqual(leaf.signature_algorithm_oid, SignatureAlgorithmOID.RSASSA_PSS)
        leaf.verify_directly_issued_by(root)

    def test_delta_list(self):
        mount, root = self.authority()
        pki = self.root.secrets.pki
        self.root.write_data(f"{mount}/config/crl", data={"auto_rebuild": True, "enable_delta": True})
        first, second = [
            pki.generate_certificate("web", f"{n}.example.com", mount_point=mount)["data"] for n in "ab"
        ]
        pki.revoke_certificate(first["serial_number"], mount_point=mount)
        self.root.read(f"{mount}/crl/rotate")
        pki.revoke_certificate(second["serial_number"], mount_point=mount)
        self.root.read(f"{mount}/crl/rotate-delta")
        fetched = [requests.get(f"{ADDRESS}/v1/{mount}/{p}", timeout=30).content for p in ("crl", "crl/delta")]
        whole, delta = [x509.load_der_x509_crl(der) for der in fetched]
        base = delta.extensions.get_extension_for_class(x509.DeltaCRLIndicator)
        number = whole.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        self.assertEqual((base.critical, base.value.crl_number), (True, number))
        self.assertGreater(delta.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number, number)
        serials = [certificate(c["certificate"]).serial_number for c in (first, second)]
        for crl, wanted in [(whole, serials[:1]), (delta, serials[1:])]:
            self.assertTrue(crl.is_signature_valid(root.public_key()))
            self.assertEqual([r.serial_number for r in crl], wanted)

    def test_a_request_made_elsewhere(self):
        mount, root = self.authority()
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "c.example.com")])
        san = x509.SubjectAlternativeName([x509.DNSName("d.example.com")])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(san, False)
        ca = csr.add_extension(x509.BasicConstraints(True, None), True).sign(key, hashes.SHA256())
        pem = ca.public_bytes(serialization.Encoding.PEM).decode()
        signed = self.root.secrets.pki.sign_certificate("web", pem, "", mount_point=mount)["data"]
        made = certificate(signed["certificate"])
        made.verify_directly_issued_by(root)
        self.assertEqual(made.public_key(), key.public_key())
        with self.assertRaises(x509.ExtensionNotFound):
            made.extensions.get_extension_for_class(x509.BasicConstraints)

    def test_refusals(self):
        mount, _ = self.authority()
        call = self.root.secrets.pki.generate_certificate
        text = "common name example.com not allowed by this role"
        self.refused(errors.InvalidRequest, text, call, "web", "example.com", mount_point=mount)
        self.refused(errors.InvalidRequest, "unknown role: none", call, "none", "a.b", mount_point=mount)


if __name__ == "__main__":
    unittest.main()
