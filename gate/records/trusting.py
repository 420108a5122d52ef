"""By whose settings, baselines and tasks a checkpoint was judged."""

from gate.records.storing import Record


class ReferencePin(Record):
    """A checkpoint whose reference the change under test pins anew.

    Attributes:
        base, head: As named before and by the change; a directory of the repository with its
            Git tree, `models/original@1a2b3c4d5e6f`.
    """

    path: str
    base: str | None
    head: str | None


class Policy(Record):
    """Whose settings, baselines and tasks decided.

    Attributes:
        commit: From which they were taken; None for the working tree.
        digest: SHA-256 over the names and contents of all of these files.
        changed: Files of that kind that the change under test touches; shown, never used.
        references: References that the change pins anew, which are used where their baseline is
            already kept.
        advisory: The base commit has no settings, so those of the change were used and decide
            nothing.
    """

    commit: str | None
    digest: str
    changed: tuple[str, ...] = ()
    references: tuple[ReferencePin, ...] = ()
    advisory: bool = False
