"""Whether the one who is asked for signed exactly what a bundle holds.

A root of trust sets its own rules: where it has a transparency log, an entry in that log is
demanded, with the log's proof of inclusion, its signed time, and the certificate's entry in the
log of certificates. GitHub's own root, for private repositories, has no log, and a timestamp
authority's word counts instead. What is judged afterwards is the signed payload and nothing else.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gate.errors import BackendUnavailableError
from gate.signature import roots, timestamped
from gate.signature.roots import Root
from gate.signature.signer import Claims, Signer
from gate.statements import PAYLOAD, Refusal

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore_models.bundle.v1 import Bundle

SIGN = "Have the workflow that judged it sign it with actions/attest, and give that bundle."
OBTAIN = "Take the statement from where its signer put it, or have the checkpoint judged again."

EXPIRED = "not valid at validation time"
ALTERED = "DSSE: invalid signature"
"""In the libraries' words."""

LONGEST = 200
"""Characters of a library's message."""


class Signed(NamedTuple):
    """What was signed, and by whom."""

    payload: bytes
    claims: Claims


def check(content: bytes, path: Path, signer: Signer) -> Signed | Refusal:
    """What a bundle holds, if this signer signed it.

    Args:
        content: Of the file.
        path: What messages call it.
        signer: Who must have.

    Raises:
        BackendUnavailableError: The library for Sigstore is missing.
        SettingsError: The trusted roots cannot be read.
    """
    try:
        import sigstore.verify  # noqa: F401
    except ImportError as error:
        raise BackendUnavailableError(
            f"a signature is checked by sigstore, which cannot be imported: {error}",
            "Install it: pip install 'quant-gate[signatures]'",
        ) from error
    trusted = roots.load(signer.trusted_root)
    try:
        bundle, certificate = _opened(content)
    # Whatever a library raises at a stranger's bytes: they are not signed by anyone.
    except Exception as error:
        return Refusal(f"{path} is not signed, or not as a Sigstore bundle: {_line(error)}", SIGN)
    issuing = [root for root in trusted if root.knows(certificate.issuer)]
    if not issuing:
        return Refusal(
            f"{path} was signed with a certificate by no trusted authority: it was issued by "
            f"{certificate.issuer.rfc4514_string()}",
            "For a private repository, name GitHub's authority too: gh attestation trusted-root > "
            "roots.jsonl, then --trusted-root roots.jsonl",
        )
    found = [_under(root, bundle, certificate, path, signer) for root in issuing]
    return next((each for each in found if isinstance(each, Signed)), found[0])


def _opened(content: bytes) -> "tuple[Bundle, Certificate]":
    """A bundle, and the certificate of the key that signed it.

    Raises:
        ValueError, TypeError: It is none.
    """
    from cryptography.x509 import load_der_x509_certificate
    from sigstore_models.bundle.v1 import Bundle

    value = json.loads(content)
    if not isinstance(value, dict) or not isinstance(value.get("verificationMaterial"), dict):
        raise TypeError("it has no verificationMaterial")
    # Left out where it is empty; the model wants it.
    value["verificationMaterial"].setdefault("tlogEntries", [])
    bundle = Bundle.from_json(json.dumps(value))
    material = bundle.verification_material
    chain = material.x509_certificate_chain
    first = material.certificate or (chain.certificates[0] if chain is not None else None)
    if bundle.dsse_envelope is None or first is None:
        raise ValueError("it holds no envelope with a certificate")
    return bundle, load_der_x509_certificate(first.raw_bytes)


def _under(
    root: Root, bundle: "Bundle", certificate: "Certificate", path: Path, signer: Signer
) -> Signed | Refusal:
    """What one root of trust makes of a bundle."""
    from sigstore import models
    from sigstore.errors import CertValidationError
    from sigstore.verify import Verifier

    asked = _Asked(signer)
    try:
        if root.logged:
            verifier = Verifier(trusted_root=models.TrustedRoot(root.model))
            whole = models.Bundle.from_json(bundle.to_json())
            kind, payload = verifier.verify_dsse(whole, asked)
        else:
            kind, payload = timestamped.verified(bundle, certificate, root, asked.verify)
    except _AnotherError as error:
        return Refusal(f"{path} was signed by {error}, not by {signer}", OBTAIN)
    except CertValidationError as error:
        if EXPIRED in str(error):
            what = "with a certificate that had expired or was not valid yet"
            return Refusal(f"{path} was signed {what}", OBTAIN)
        what = "with a certificate that no trusted authority issued"
        return Refusal(f"{path} was signed {what}: {_line(error)}", OBTAIN)
    # Whatever a library raises at a stranger's bytes: they are not verified.
    except Exception as error:
        if ALTERED in str(error):
            return Refusal(f"{path} was altered after it was signed", OBTAIN)
        return Refusal(f"{path}: its signature cannot be believed: {_line(error)}", OBTAIN)
    if kind != PAYLOAD or asked.claims is None:
        return Refusal(f"{path}: what was signed is {kind!r}, and no statement", OBTAIN)
    return Signed(payload, asked.claims)


class _AnotherError(Exception):
    """A genuine certificate, and not the one that is asked for."""


class _Asked:
    """The policy of a verifier: whose certificate it must be."""

    def __init__(self, signer: Signer) -> None:
        self.signer = signer
        self.claims: Claims | None = None

    def verify(self, cert: "Certificate") -> None:
        claims = Claims.of(cert)
        if not self.signer.is_meant_by(claims):
            raise _AnotherError(str(claims))
        self.claims = claims


def _line(error: Exception) -> str:
    """The beginning of what a library says."""
    return " ".join(str(error).split())[:LONGEST] or type(error).__name__
