"""A verdict bound to the bytes that it is about: an in-toto statement of type test-result.

Source: https://github.com/in-toto/attestation (spec/v1, spec/predicates/test-result.md, v0.1).
"""

from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from gate.records.storing import Record

StatementType = Literal["https://in-toto.io/Statement/v1"]
PredicateType = Literal["https://in-toto.io/attestation/test-result/v0.1"]


class _Named(Record):
    """A record whose names are written as in-toto writes them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Resource(_Named):
    """A file, or a thing that decided, by its digest.

    Attributes:
        digest: Algorithm to hexadecimal digest.
    """

    name: str
    digest: dict[str, str] = Field(default={})
    annotations: dict[str, Any] = Field(default={})


class TestResult(_Named):
    """What was tested, how, and how it ended.

    Attributes:
        configuration: The report, the settings, the baseline, and each suite.
        passed_tests, warned_tests, failed_tests: `lint`, `ifeval inst_level_strict_acc`, ...
    """

    __test__ = False  # no test of pytest's

    result: Literal["PASSED", "WARNED", "FAILED"]
    configuration: tuple[Resource, ...]
    url: str | None = None
    passed_tests: tuple[str, ...] = ()
    warned_tests: tuple[str, ...] = ()
    failed_tests: tuple[str, ...] = ()

    def resource(self, name: str) -> Resource | None:
        """One part of the configuration."""
        return next((found for found in self.configuration if found.name == name), None)


class Statement(_Named):
    """An in-toto statement about every file of a checkpoint."""

    type: StatementType = Field(default="https://in-toto.io/Statement/v1", alias="_type")
    subject: tuple[Resource, ...]
    predicate_type: PredicateType = "https://in-toto.io/attestation/test-result/v0.1"
    predicate: TestResult

    @property
    def digests(self) -> dict[str, str]:
        """File to SHA-256."""
        return {file.name: file.digest.get("sha256", "") for file in self.subject}
