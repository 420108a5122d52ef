"""A whole Sigstore of one's own: authorities, logs and timestamps, with keys of this process.

Source: RFC 6962 (certificate transparency, Merkle trees), RFC 3161 (timestamps, made by openssl),
https://github.com/sigstore/protobuf-specs (bundle, trusted root), and for what a certificate
claims https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md
"""

import base64
import hashlib
import json
import struct
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ISSUER = "https://token.actions.githubusercontent.com"
REPOSITORY = "https://github.com/acme/models"
WORKFLOW = f"{REPOSITORY}/.github/workflows/release.yml@refs/tags/v1.0.0"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
SHA256_P256 = "PKIX_ECDSA_P256_SHA_256"
LIFE = timedelta(minutes=10)
Key = ec.EllipticCurvePrivateKey


def key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def sign(signing: Key, message: bytes) -> bytes:
    return signing.sign(message, ec.ECDSA(hashes.SHA256()))


def public(signing: Key) -> bytes:
    return signing.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def log_id(signing: Key) -> bytes:
    return hashlib.sha256(public(signing)).digest()


def time_of(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def named(organization: str, common: str) -> x509.Name:
    given = {NameOID.ORGANIZATION_NAME: organization, NameOID.COMMON_NAME: common}
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in given.items()])


class Issuer:
    """An authority with a root and an intermediate certificate, which signs leaves.

    Args:
        organization: Part of its names; two with the same are told apart by their keys alone.
        purpose: What its leaves are for.
    """

    def __init__(self, organization: str, purpose: x509.ObjectIdentifier) -> None:
        self.purpose = purpose
        self.began = datetime.now(UTC) - timedelta(days=365)
        root, self.key = key(), key()
        top, middle = named(organization, "root"), named(organization, "intermediate")
        self.root = self._authority(top, root, top, root, 1)
        self.certificate = self._authority(middle, self.key, top, root, 0)

    def _authority(
        self, subject: x509.Name, own: Key, issuer: x509.Name, signing: Key, below: int
    ) -> x509.Certificate:
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
             "key_agreement", "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        builder = self._builder(subject, own.public_key(), issuer, signing.public_key())
        return (
            builder.not_valid_before(self.began)
            .not_valid_after(self.began + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=below), critical=True)
            .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
            .sign(signing, hashes.SHA256())
        )

    def _builder(
        self, subject: x509.Name, own: Any, issuer: x509.Name, signing: Any
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(own)
            .serial_number(x509.random_serial_number())
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(own), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signing), critical=False
            )
        )

    def leaf(
        self,
        own: Key,
        begins: datetime,
        life: timedelta,
        extensions: list[tuple[x509.ExtensionType, bool]],
        name: x509.Name | None = None,
    ) -> x509.CertificateBuilder:
        """A certificate for a key, still to be signed."""
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only", "key_cert_sign", "crl_sign"), False,
        )  # fmt: skip
        found = self._builder(
            name or x509.Name([]), own.public_key(), self.certificate.subject, self.key.public_key()
        )
        found = found.not_valid_before(begins).not_valid_after(begins + life)
        found = found.add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
        found = found.add_extension(
            x509.ExtendedKeyUsage([self.purpose]),
            critical=self.purpose == ExtendedKeyUsageOID.TIME_STAMPING,
        )
        for extension, critical in extensions:
            found = found.add_extension(extension, critical=critical)
        return found

    def trusted(self, *first: x509.Certificate, end: datetime | None = None) -> dict[str, Any]:
        """As a trusted root lists it.

        Args:
            first: Certificates that come before its own.
            end: When it was given up.
        """
        chain = [*first, self.certificate, self.root]
        valid = {"start": time_of(self.began)} | ({"end": time_of(end)} if end else {})
        return {
            "subject": {"organization": "stub", "commonName": "stub"},
            "uri": "https://authority.example",
            "certChain": {
                "certificates": [{"rawBytes": b64(c.public_bytes(Encoding.DER))} for c in chain]
            },
            "validFor": valid,
        }


def claims(identity: str, repository: str, issuer: str) -> list[tuple[x509.ExtensionType, bool]]:
    """What a certificate says of the signer."""

    def text(number: int, value: str) -> tuple[x509.ExtensionType, bool]:
        oid = x509.ObjectIdentifier(f"1.3.6.1.4.1.57264.1.{number}")
        return x509.UnrecognizedExtension(oid, _der(0x0C, value.encode())), False

    name = x509.UniformResourceIdentifier(identity)
    return [(x509.SubjectAlternativeName([name]), True), text(8, issuer), text(12, repository)]


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    size = bytes([length]) if length < 128 else b"\x82" + length.to_bytes(2, "big")
    return bytes([tag]) + size + content


class Sigstore:
    """Signs statements as the public instance does, with logs, or as GitHub's, with timestamps.

    Args:
        directory: For what openssl needs.
        logged: Whether it has logs.
        organization: In the names of its authority.
    """

    def __init__(self, directory: Path, *, logged: bool, organization: str = "stub") -> None:
        directory.mkdir()
        self.directory, self.logged = directory, logged
        self.issuer = Issuer(organization, ExtendedKeyUsageOID.CODE_SIGNING)
        self.certificates_log, self.log = key(), key()
        self.stamping = Issuer(organization, ExtendedKeyUsageOID.TIME_STAMPING)
        self.given_up: datetime | None = None
        own = key()
        stamper = self.stamping.leaf(
            own, self.stamping.began, timedelta(days=3650), [], named(organization, "stamper")
        )
        self.stamper = stamper.sign(self.stamping.key, hashes.SHA256())
        self._prepare_openssl(own)

    def trusted_root(self) -> dict[str, Any]:
        """What its clients trust."""

        def log(signing: Key) -> dict[str, Any]:
            return {
                "baseUrl": "https://log.example",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": b64(public(signing)),
                    "keyDetails": SHA256_P256,
                    "validFor": {"start": time_of(self.issuer.began)},
                },
                "logId": {"keyId": b64(log_id(signing))},
            }

        found = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "certificateAuthorities": [self.issuer.trusted()],
            "timestampAuthorities": [self.stamping.trusted(self.stamper, end=self.given_up)],
        }
        if self.logged:
            found |= {"tlogs": [log(self.log)], "ctlogs": [log(self.certificates_log)]}
        return found

    def bundle(
        self,
        payload: bytes,
        *,
        identity: str = WORKFLOW,
        repository: str = REPOSITORY,
        issuer: str = ISSUER,
        payload_type: str = PAYLOAD_TYPE,
        begins: datetime | None = None,
    ) -> dict[str, Any]:
        """A signed payload, with a certificate of ten minutes.

        Args:
            begins: When the certificate does; a minute ago.
        """
        own = key()
        begins = begins or datetime.now(UTC) - timedelta(minutes=1)
        leaf = self.issuer.leaf(own, begins, LIFE, claims(identity, repository, issuer))
        certificate = self._certified(leaf)
        kind = payload_type.encode()
        message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
        signature = sign(own, message)
        material: dict[str, Any] = {
            "certificate": {"rawBytes": b64(certificate.public_bytes(Encoding.DER))},
            "tlogEntries": [],
        }
        if self.logged:
            material["tlogEntries"] = [self._entry(payload, signature, certificate)]
        else:
            material["timestampVerificationData"] = {
                "rfc3161Timestamps": [{"signedTimestamp": b64(self.stamped(signature))}]
            }
        return {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": material,
            "dsseEnvelope": {
                "payload": b64(payload),
                "payloadType": payload_type,
                "signatures": [{"sig": b64(signature)}],
            },
        }

    def _certified(self, leaf: x509.CertificateBuilder) -> x509.Certificate:
        """A signed certificate; with logs, entered in the one of certificates."""
        without = leaf.sign(self.issuer.key, hashes.SHA256())
        if not self.logged:
            return without
        at = int(datetime.now(UTC).timestamp() * 1000)
        body = without.tbs_certificate_bytes
        issuer = hashlib.sha256(public(self.issuer.key)).digest()
        entered = issuer + len(body).to_bytes(3, "big") + body
        message = struct.pack("!BBQH", 0, 0, at, 1) + entered + b"\0\0"
        signature = sign(self.certificates_log, message)
        stamp = b"\0" + log_id(self.certificates_log) + struct.pack("!QH", at, 0)
        stamp += b"\x04\x03" + struct.pack("!H", len(signature)) + signature
        listed = struct.pack("!HH", len(stamp) + 2, len(stamp)) + stamp
        oid = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
        extension = x509.UnrecognizedExtension(oid, _der(0x04, listed))
        return leaf.add_extension(extension, critical=False).sign(self.issuer.key, hashes.SHA256())

    def _entry(
        self, payload: bytes, signature: bytes, certificate: x509.Certificate
    ) -> dict[str, Any]:
        """An entry of the log, the first of two."""
        verifier = b64(certificate.public_bytes(Encoding.PEM))
        signed = {"signature": b64(signature), "verifier": verifier}
        digest = {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()}
        spec = {"envelopeHash": digest, "payloadHash": digest, "signatures": [signed]}
        body = canonical({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec})
        other = hashlib.sha256(b"\0another entry").digest()
        root = hashlib.sha256(b"\1" + hashlib.sha256(b"\0" + body).digest() + other).digest()
        note = f"log.example - 1\n2\n{b64(root)}\n"
        noted = b64(log_id(self.log)[:4] + sign(self.log, note.encode()))
        at = int(datetime.now(UTC).timestamp())
        own = log_id(self.log)
        promised = canonical(
            {"body": b64(body), "integratedTime": at, "logID": own.hex(), "logIndex": 7}
        )
        return {
            "logIndex": "7",
            "logId": {"keyId": b64(own)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(at),
            "inclusionPromise": {"signedEntryTimestamp": b64(sign(self.log, promised))},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": b64(root),
                "treeSize": "2",
                "hashes": [b64(other)],
                "checkpoint": {"envelope": f"{note}\n— log.example {noted}\n"},
            },
            "canonicalizedBody": b64(body),
        }

    def stamped(self, content: bytes) -> bytes:
        """A timestamp over some content, of now."""
        (self.directory / "content").write_bytes(content)
        self._openssl("-query", "-data", "content", "-sha256", "-cert", "-out", "query")
        self._openssl("-reply", "-config", "tsa.cnf", "-queryfile", "query", "-out", "reply")
        return (self.directory / "reply").read_bytes()

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(
            ["openssl", "ts", *arguments], cwd=self.directory, check=True, capture_output=True
        )

    def _prepare_openssl(self, own: Key) -> None:
        pem = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.directory / "tsa.key").write_bytes(pem)
        (self.directory / "tsa.pem").write_bytes(self.stamper.public_bytes(Encoding.PEM))
        (self.directory / "tsa.cnf").write_text(OPENSSL)


def canonical(value: Any) -> bytes:
    """JSON as a log signs it; RFC 8785 for what is used here."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


OPENSSL = """
[tsa]
default_tsa = stub
[stub]
dir = .
serial = ./serial
crypto_device = builtin
signer_cert = tsa.pem
signer_key = tsa.key
signer_digest = sha256
default_policy = 1.3.6.1.4.1.57264.2
digests = sha256
ess_cert_id_alg = sha256
"""
