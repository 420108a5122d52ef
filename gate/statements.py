"""The statement in a file, bare or wrapped; what is wrong with it is told, not raised."""

import base64
import json
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from gate import records
from gate.records import Statement

MAX_BYTES = 16 * 2**20
"""Of a statement: what GitHub stores of a predicate."""

MOST = 64
"""Statements in a file of which one may be about a test."""

PAYLOAD = "application/vnd.in-toto+json"

AGAIN = "Make it: gate attest REPORT --checkpoint CHECKPOINT -o statement.json"


class Refusal(NamedTuple):
    """Why a checkpoint is not what was attested."""

    message: str
    fix: str


def content(path: Path) -> bytes | Refusal:
    """A file's bytes, if it can be a statement."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return Refusal(f"{path} is larger than a statement may be", AGAIN)
        return path.read_bytes()
    except OSError as error:
        return Refusal(f"there is no statement {path}: {error.strerror}", AGAIN)


def documents(content: bytes) -> list[bytes]:
    """What a file holds: one document, or one a line, as `gh attestation download` writes them."""
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        lines = [line for line in content.splitlines() if line.strip()]
        if all(line.startswith(b"{") for line in lines[:MOST]):
            return lines[:MOST] or [content]
    return [content]


def unsigned(content: bytes, path: Path) -> Statement | Refusal:
    """The statement in a file, in a DSSE envelope or in a Sigstore bundle, whoever signed it.

    Args:
        content: Of the file.
        path: What messages call it.
    """
    return _statement(content, path, wrapped=True)


def parsed(content: bytes, path: Path) -> Statement | Refusal:
    """A bare statement.

    Args:
        content: Its JSON.
        path: What messages call it.
    """
    return _statement(content, path, wrapped=False)


def _statement(content: bytes, path: Path, *, wrapped: bool) -> Statement | Refusal:
    try:
        value = json.loads(content)
        return Statement.model_validate(_unwrapped(value) if wrapped else value)
    except ValidationError as error:
        return Refusal(f"{path} is no statement about a test: {records.violation(error)}", AGAIN)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return Refusal(f"{path} is no statement: {error}", AGAIN)


def _unwrapped(value: Any) -> Any:
    """What is inside a DSSE envelope, which may lie in a Sigstore bundle."""
    if not isinstance(value, dict):
        raise TypeError("it holds no JSON object")
    envelope = value.get("dsseEnvelope", value)
    if "payload" not in envelope:
        return value
    if envelope["payloadType"] != PAYLOAD:
        raise ValueError(f"the envelope holds {envelope['payloadType']!r}")
    return json.loads(base64.b64decode(envelope["payload"], validate=True))
