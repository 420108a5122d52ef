"""Rule lfs-pointer."""

from gate.rule import OpeningRule


class LfsPointer(OpeningRule):
    """A file is a Git LFS pointer instead of its content.

    Flags:
        A file begins with `version https://git-lfs`.
    Why:
        The checkout left the large files on the server; loaders report a header that is too large.
    Repair:
        git lfs pull in the checkout, with lfs: true in actions/checkout.
    Source:
        https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
    """
