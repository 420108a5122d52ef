"""The authorities that count: Sigstore's public ones, or those of a file."""

import json
from collections.abc import Sequence
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gate.errors import SettingsError
from gate.statements import MAX_BYTES

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore_models.trustroot import v1

PUBLIC = "https%3A%2F%2Ftuf-repo-cdn.sigstore.dev/trusted_root.json"
"""In sigstore's package, as it was released; what it caches in a home directory is not asked."""

MAKE = "Make it: gh attestation trusted-root > trusted_root.jsonl"


class Authority(NamedTuple):
    """Who issues certificates or timestamps.

    Attributes:
        chain: From the one that signs to the root.
        end: When it was given up; None while it is in use.
    """

    chain: "Sequence[Certificate]"
    start: datetime
    end: datetime | None

    def was_in_use(self, time: datetime) -> bool:
        """Whether it could speak then."""
        return self.start <= time and (self.end is None or time <= self.end)


class Root(NamedTuple):
    """One root of trust.

    Attributes:
        model: As the library for Sigstore has it.
    """

    model: "v1.TrustedRoot"

    @property
    def logged(self) -> bool:
        """Whether it has a transparency log, in which every signature must then be."""
        return bool(self.model.tlogs)

    @property
    def certifying(self) -> list[Authority]:
        """Those that certify signers."""
        return [_authority(each) for each in self.model.certificate_authorities]

    @property
    def timestamping(self) -> list[Authority]:
        """Those that say when something was there."""
        return [_authority(each) for each in self.model.timestamp_authorities]

    def knows(self, issuer: object) -> bool:
        """Whether an authority has the name by which a certificate was issued."""
        names = [held.subject for each in self.certifying for held in each.chain]
        return issuer in names


def load(file: Path | None) -> list[Root]:
    """Every root of trust, each with the rules that its own content sets.

    Args:
        file: One JSON document, or one a line as `gh attestation trusted-root` prints them; None
            for the public one that sigstore ships.

    Raises:
        SettingsError: The file holds none.
    """
    if file is None:
        return _roots(resources.files("sigstore._store").joinpath(PUBLIC).read_bytes())
    try:
        with file.open("rb") as opened:
            return _roots(opened.read(MAX_BYTES))
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}", MAKE) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise SettingsError(f"{file} holds no trusted roots: {error}", MAKE) from error


def _roots(content: bytes) -> list[Root]:
    """The roots in a document.

    Raises:
        ValueError, TypeError: It is none, or one of them names no authority.
    """
    from sigstore_models.trustroot import v1

    try:
        documents = [json.loads(content)]
    except ValueError:
        documents = [json.loads(line) for line in content.splitlines() if line.strip()]
    # GitHub's own root has no logs; the model wants the lists all the same.
    without: dict[str, object] = {"tlogs": [], "ctlogs": []}
    found = [
        Root(v1.TrustedRoot.from_json(json.dumps(without | document))) for document in documents
    ]
    if not found or not all(root.certifying for root in found):
        raise ValueError("no authority is named")
    return found


def _authority(model: "v1.CertificateAuthority") -> Authority:
    from cryptography.x509 import load_der_x509_certificate

    chain = [load_der_x509_certificate(each.raw_bytes) for each in model.cert_chain.certificates]
    return Authority(chain, model.valid_for.start, model.valid_for.end)
