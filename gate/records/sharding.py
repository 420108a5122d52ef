"""A run in parts, on several machines."""

from typing import Self

from pydantic import Field, model_validator

from gate.records.storing import Record, Sha256

MOST_SHARDS = 1024


class Shard(Record):
    """Which part of a run a result is: each `count`-th batch of it, beginning with `index`.

    Attributes:
        index: From 1.
        count: Shards of the whole run.
        settings: SHA-256 over the settings that it was measured with.
    """

    index: int = Field(ge=1)
    count: int = Field(ge=1, le=MOST_SHARDS)
    settings: Sha256

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.index > self.count:
            raise ValueError(f"there is no shard {self}")
        return self

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def first(self) -> bool:
        """Whether what is measured once for the whole run is measured here."""
        return self.index == 1
