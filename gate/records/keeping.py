"""What a store says of each result that it keeps."""

from typing import Literal

from pydantic import Field

from gate.records.storing import SCHEMA_VERSION, Record, Sha256

Kind = Literal["baseline", "candidate", "report"]


class Label(Record):
    """What is said of a document that is to be kept.

    Attributes:
        key: Whose it is: the SHA-256 of a model's weights.
        model: What the user named.
        date: When it was measured.
        facts: What tells it from others of the same model: suites, template, device, ...
    """

    schema_version: int = SCHEMA_VERSION
    kind: Kind
    key: Sha256
    model: str
    revision: str | None = None
    date: str
    facts: dict[str, str] = Field(default={})


class Entry(Label):
    """One kept document.

    Attributes:
        content: SHA-256 of the document.
        attachments: SHA-256 of each array file that belongs to it.
    """

    content: Sha256
    attachments: tuple[Sha256, ...] = ()

    @property
    def short(self) -> str:
        """By what people name it: enough of its digest."""
        return self.content[:12]
