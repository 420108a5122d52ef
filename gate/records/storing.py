"""How values are written to disk and read back: all of it or nothing, older versions too."""

import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from gate.errors import GateError

SCHEMA_VERSION = 1


def _hexadecimal(value: str) -> str:
    """Digests name files, so nothing else may stand in their place."""
    if len(value) != SHA256_DIGITS or set(value) - set("0123456789abcdef"):
        raise ValueError("it is no SHA-256")
    return value


SHA256_DIGITS = 64
Sha256 = Annotated[str, AfterValidator(_hexadecimal)]
"""64 hexadecimal digits. Not by a pattern: the schema is held against what strangers send."""


class Record(BaseModel):
    """A value that may be stored."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


R = TypeVar("R", bound=Record)


def violation(error: ValidationError) -> str:
    """The first place at which a document is not what it should be, as a JSON pointer, and why."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"at /{'/'.join(map(str, first['loc']))}: {first['msg']}"


def now() -> str:
    """The time as records hold it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write(path: Path, record: Record) -> None:
    """Write a record as JSON: all of it or nothing.

    Raises:
        GateError: The directory cannot be written.
    """
    write_text(path, record.model_dump_json(indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text atomically, in UTF-8.

    Raises:
        GateError: The directory cannot be written.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        GateError: The directory cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp gives 0600; a report is as readable as any file that the user makes.
            umask = os.umask(0)
            os.umask(umask)
            Path(name).chmod(0o666 & ~umask)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise GateError(
            f"{path} cannot be written: {error}",
            "Name a file in a directory that you may write to.",
        ) from error


def read(path: Path, kind: type[R]) -> R:
    """Read a stored record of this or an older schema version.

    Raises:
        GateError: Missing, unreadable, newer, or not a record of that kind.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, kind, error) from error
    return decode(content, kind, path)


def decode(content: bytes, kind: type[R], path: Path) -> R:
    """A stored record of this or an older schema version from a file's content.

    Args:
        content: As it was read.
        kind: What it should be.
        path: What messages call it.

    Raises:
        GateError: Unreadable, newer, or not a record of that kind.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, kind, error) from error
    return parse(value, kind, path)


def _unreadable(path: Path, kind: type[Record], error: Exception) -> GateError:
    return GateError(
        f"{path} cannot be read as {kind.__name__}: {error}", "Make it again with gate eval."
    )


def parse(value: Any, kind: type[R], path: Path) -> R:
    """A stored record of this or an older schema version from its JSON.

    Args:
        value: The document.
        kind: What it should be.
        path: What messages call it.

    Raises:
        GateError: Newer, or not a record of that kind.
    """
    what = kind.__name__
    version = value.get("schema_version") if isinstance(value, dict) else None
    if type(version) is not int:
        raise GateError(
            f"{path} is not a stored {what}: it has no schema_version",
            "Make it again with gate eval.",
        )
    if version > SCHEMA_VERSION:
        raise GateError(
            f"{path} has schema version {version}; this quant-gate reads up to {SCHEMA_VERSION}",
            "Upgrade: pip install --upgrade quant-gate",
        )
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise GateError(
            f"{path} is not a stored {what}: {violation(error)}",
            "Make it again with gate eval.",
        ) from error
