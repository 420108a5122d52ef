"""Who signed a statement: Sigstore bundles, checked without a network."""

from gate.signature.checking import check
from gate.signature.signer import Signer, asked

__all__ = ["Signer", "asked", "check"]
