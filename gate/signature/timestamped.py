"""Signatures without a public log: GitHub's own authority, which signs for private repositories.

Their time is a timestamp authority's word, and no log shows them to others. The library for
Sigstore verifies no bundle without a log entry.

Source: https://docs.github.com/actions/concepts/security/artifact-attestations and
https://github.com/sigstore/sigstore-python/issues/1529
"""

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from gate.signature.roots import Authority, Root

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from rfc3161_client import TimeStampResponse
    from sigstore_models.bundle.v1 import Bundle

MOST_TIMESTAMPS = 32


def verified(
    bundle: "Bundle",
    certificate: "Certificate",
    root: Root,
    require: "Callable[[Certificate], None]",
) -> tuple[str, bytes]:
    """The payload's type, and the payload that was signed.

    Args:
        bundle: With an envelope.
        certificate: Of its signer.
        root: With authorities for certificates and for timestamps.
        require: Raises where the certificate is genuine and not the one that is asked for.

    Raises:
        VerificationError: It cannot be believed.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509 import ExtendedKeyUsage
    from cryptography.x509.oid import ExtendedKeyUsageOID
    from sigstore.errors import VerificationError

    envelope = bundle.dsse_envelope
    if envelope is None or len(envelope.signatures) != 1:
        raise VerificationError("it holds no envelope with one signature")
    signature = envelope.signatures[0].sig
    times = _times(bundle, signature, root)
    if not times:
        raise VerificationError("no trusted authority confirms when it was signed")
    for time in times:
        _require_chain(certificate, root, time)
    uses = certificate.extensions.get_extension_for_class(ExtendedKeyUsage).value
    if ExtendedKeyUsageOID.CODE_SIGNING not in uses:
        raise VerificationError("its certificate is not for signing code")
    require(certificate)
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise VerificationError("its key is of an unknown kind")
    try:
        message = _encoded(envelope.payload_type, envelope.payload)
        key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise VerificationError("DSSE: invalid signature") from error
    return envelope.payload_type, envelope.payload


def _encoded(kind: str, payload: bytes) -> bytes:
    """What a DSSE signature is over.

    Source: https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md
    """
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)


def _times(bundle: "Bundle", signature: bytes, root: Root) -> list[datetime]:
    """When the signature was there, in the words of trusted timestamp authorities."""
    from rfc3161_client import decode_timestamp_response

    data = bundle.verification_material.timestamp_verification_data
    stamps = data.rfc3161_timestamps[:MOST_TIMESTAMPS] if data is not None else []
    responses = [decode_timestamp_response(stamp.signed_timestamp) for stamp in stamps]
    return [
        response.tst_info.gen_time
        for response in responses
        if any(_confirms(authority, response, signature) for authority in root.timestamping)
    ]


def _confirms(authority: Authority, response: "TimeStampResponse", signature: bytes) -> bool:
    """Whether a timestamp is over the signature, and by this authority in its time."""
    from rfc3161_client import VerificationError, VerifierBuilder

    stamper, *above = authority.chain
    if not above or not authority.was_in_use(response.tst_info.gen_time):
        return False
    builder = VerifierBuilder().tsa_certificate(stamper).add_root_certificate(above[-1])
    for certificate in above[:-1]:
        builder = builder.add_intermediate_certificate(certificate)
    try:
        return builder.build().verify_message(response, signature)
    except VerificationError:
        return False


def _require_chain(certificate: "Certificate", root: Root, time: datetime) -> None:
    """Refuse a certificate that no authority of the root issued, or that was not valid then.

    Raises:
        CertValidationError: It is one.
    """
    from cryptography.x509 import ExtendedKeyUsage
    from cryptography.x509.verification import (
        Criticality,
        ExtensionPolicy,
        PolicyBuilder,
        Store,
        VerificationError,
    )
    from sigstore.errors import CertValidationError

    active = [each for each in root.certifying if each.was_in_use(time)]
    if not active:
        raise CertValidationError("none was in use when it signed")
    # Without this, a certificate for a web client is wanted.
    any_use = (ExtendedKeyUsage, Criticality.NON_CRITICAL, None)
    issuers = ExtensionPolicy.webpki_defaults_ca().may_be_present(*any_use)
    leaf = ExtensionPolicy.webpki_defaults_ee().may_be_present(*any_use)
    verifier = (
        PolicyBuilder()
        .store(Store([held for each in active for held in each.chain]))
        .time(time)
        .extension_policies(ca_policy=issuers, ee_policy=leaf)
        .build_client_verifier()
    )
    try:
        verifier.verify(certificate, [])
    except VerificationError as error:
        raise CertValidationError(str(error)) from error
