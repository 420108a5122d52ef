"""What a bundle says of itself."""

from gate.records.storing import SCHEMA_VERSION, Record


class Bundle(Record):
    """What was packed for a runner without a network.

    Attributes:
        versions: Packages with which the data sets were read.
        files: Path in the bundle to SHA-256, of everything but this record.
    """

    schema_version: int = SCHEMA_VERSION
    gate_version: str
    versions: dict[str, str]
    files: dict[str, str]
    date: str
