"""Who must have signed, held against who a certificate says did."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from gate.errors import SettingsError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

GITHUB = "https://github.com/"
GITHUB_ISSUER = "https://token.actions.githubusercontent.com"

WORKFLOWS = ".github/workflows/"

ISSUER_OID = "1.3.6.1.4.1.57264.1.8"
REPOSITORY_OID = "1.3.6.1.4.1.57264.1.12"
"""Source: https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md"""


class Claims(NamedTuple):
    """What the certificate authority says of a signer.

    Attributes:
        identity: A workflow's address with its ref, or an e-mail address.
        issuer: Who vouched for it.
        repository: In which the workflow ran; not where its file lies. None where none did.
    """

    identity: str
    issuer: str
    repository: str | None

    @classmethod
    def of(cls, certificate: "Certificate") -> Self:
        """The claims in a certificate.

        Raises:
            ValueError: It names no one, or several.
        """
        from cryptography import x509

        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = [
            *names.get_values_for_type(x509.UniformResourceIdentifier),
            *names.get_values_for_type(x509.RFC822Name),
        ]
        issuer = _text(certificate, ISSUER_OID)
        if len(found) != 1 or len(names) != 1 or issuer is None:
            raise ValueError("its certificate does not name one signer and who vouches for it")
        return cls(found[0], issuer, _text(certificate, REPOSITORY_OID))

    def __str__(self) -> str:
        where = f", running in {self.repository}" if self.repository is not None else ""
        return f"{self.identity}{where} (issuer {self.issuer})"


class Signer(NamedTuple):
    """Who must have signed, by an identity or by a repository; see `asked`.

    Attributes:
        identity: All of it: https://github.com/org/name/.github/workflows/release.yml@refs/...
        repository: org/name, in which the workflow must have run.
        workflow: Its file, with a ref or without: .github/workflows/release.yml@refs/tags/v1, or
            org/other/.github/workflows/... where it is another repository's; None for any of the
            repository's own.
        issuer: Who must have vouched for it.
        trusted_root: A file with the authorities that count; None for Sigstore's public ones.
    """

    identity: str | None = None
    repository: str | None = None
    workflow: str | None = None
    issuer: str = GITHUB_ISSUER
    trusted_root: Path | None = None

    def is_meant_by(self, claims: Claims) -> bool:
        """Whether a certificate names this signer."""
        if claims.issuer != self.issuer:
            return False
        if self.repository is None:
            return claims.identity == self.identity
        if claims.repository != f"{GITHUB}{self.repository}":
            return False
        file, _, _ = claims.identity.partition("@")
        if self.workflow is None:
            return file.startswith(f"{GITHUB}{self.repository}/{WORKFLOWS}")
        own = self.workflow.startswith(WORKFLOWS)
        wanted = f"{GITHUB}{self.repository}/{self.workflow}" if own else f"{GITHUB}{self.workflow}"
        return wanted == (claims.identity if "@" in self.workflow else file)

    def __str__(self) -> str:
        if self.repository is None:
            return f"{self.identity} (issuer {self.issuer})"
        return f"{self.workflow or 'a workflow'} in {self.repository}"


def asked(
    *,
    identity: str | None,
    repository: str | None,
    workflow: str | None,
    issuer: str | None,
    trusted_root: Path | None,
) -> Signer | None:
    """The signer that a command line asks for; None where it asks for nobody.

    Args:
        identity, repository, workflow, issuer, trusted_root: As `Signer` has them.

    Raises:
        SettingsError: They do not name one signer.
    """
    if identity is None and repository is None:
        given = {"--workflow": workflow, "--issuer": issuer, "--trusted-root": trusted_root}
        for option, value in given.items():
            if value is not None:
                raise SettingsError(
                    f"{option} says nothing without a signer", "Give --repository or --signer."
                )
        return None
    if identity is not None and (repository is not None or workflow is not None):
        raise SettingsError(
            "--signer is all of an identity", "Leave out --repository and --workflow."
        )
    name = r"[\w.-]+/[\w.-]+"
    if repository is not None and not re.fullmatch(name, repository, re.ASCII):
        raise SettingsError(f"{repository!r} is no repository", "Write --repository org/name.")
    file = rf"({name}/)?{re.escape(WORKFLOWS)}[^/@]+(@.+)?"
    if workflow is not None and (repository is None or not re.fullmatch(file, workflow, re.ASCII)):
        raise SettingsError(
            f"{workflow!r} is no workflow of a repository",
            f"Write --repository org/name --workflow {WORKFLOWS}release.yml",
        )
    return Signer(identity, repository, workflow, issuer or GITHUB_ISSUER, trusted_root)


def _text(certificate: "Certificate", oid: str) -> str | None:
    """An extension that holds a text; None where there is none."""
    from cryptography import x509
    from cryptography.hazmat import asn1

    try:
        found: Any = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(oid))
    except x509.ExtensionNotFound:
        return None
    return asn1.decode_der(str, found.value.value)
