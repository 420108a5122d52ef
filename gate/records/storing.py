"""How values are written to disk and read back: all of it or nothing, older versions too."""

import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from gate.errors import GateError

SCHEMA_VERSION = 1


class Record(BaseModel):
    """A value that may be stored."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


R = TypeVar("R", bound=Record)


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
    """Write a file atomically.

    Raises:
        GateError: The directory cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
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
    what = kind.__name__
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise GateError(
            f"{path} cannot be read as {what}: {error}", "Make it again with gate eval."
        ) from error
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
        first = error.errors()[0]
        where = "/".join(str(part) for part in first["loc"])
        raise GateError(
            f"{path} is not a stored {what}: at /{where}: {first['msg']}",
            "Make it again with gate eval.",
        ) from error
