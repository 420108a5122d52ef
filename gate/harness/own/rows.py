"""The lines of the user's own file, held against their scorer and brought into one shape."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gate.errors import SettingsError
from gate.harness.own import patterns, schemas
from gate.settings import Scorer

MOST_CHARACTERS = 1 << 20
"""Of a prompt or an answer: longer ones are a mistake."""

MOST_CHOICES = 256


def rows(path: Path, lines: Iterable[tuple[int, dict[str, Any]]], scorer: Scorer) -> bytes:
    """The lines as the scorer's task file wants them, one JSON object a line.

    Args:
        path: What messages call the file.
        lines: Number and content of each.

    Raises:
        SettingsError: A line does not hold what the scorer needs; it names the line.
    """
    shaped = []
    for number, line in lines:
        try:
            shaped.append(json.dumps({"prompt": _text(line, "prompt"), **SHAPES[scorer](line)}))
        except ValueError as error:
            raise SettingsError(
                f"{path}, line {number}: {error}",
                f"Mend the line: scorer {scorer} needs {NEEDS[scorer]}.",
            ) from error
    return "\n".join(shaped).encode()


NEEDS: dict[Scorer, str] = {
    "exact": "prompt, and answer as a text or a list of texts",
    "contains": "prompt, and answer as a text or a list of texts",
    "regex": "prompt, and answer as a pattern that RE2 knows",
    "choice": "prompt, choices, and answer as one of them or its place, counted from 0",
    "json-schema": "prompt, and answer as a JSON Schema that refers to nothing outside itself",
}


def _answers(line: dict[str, Any]) -> dict[str, Any]:
    """One right answer or several, of which each will do."""
    given = line.get("answer")
    answers = given if isinstance(given, list) else [given]
    if not answers:
        raise ValueError("answer is an empty list")
    return {"answer": [_text({"answer": answer}, "answer") for answer in answers]}


def _pattern(line: dict[str, Any]) -> dict[str, Any]:
    pattern = _text(line, "answer")
    patterns.compiled(pattern)
    return {"answer": [pattern]}


def _schema(line: dict[str, Any]) -> dict[str, Any]:
    """The schema as text: those of all lines together have no common shape."""
    schemas.require_sound(line.get("answer"))
    return {"answer": [json.dumps(line["answer"])]}


def _choices(line: dict[str, Any]) -> dict[str, Any]:
    choices = line.get("choices")
    if not isinstance(choices, list) or not 2 <= len(choices) <= MOST_CHOICES:
        raise ValueError(f"choices is no list of 2 to {MOST_CHOICES} texts")
    texts = [_text({"choices": choice}, "choices") for choice in choices]
    if len(set(texts)) < len(texts):
        raise ValueError("two choices are the same")
    answer = line.get("answer")
    if isinstance(answer, str) and answer in texts:
        answer = texts.index(answer)
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(texts):
        raise ValueError("answer is none of the choices")
    return {"choices": texts, "answer": answer}


SHAPES: dict[Scorer, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "exact": _answers,
    "contains": _answers,
    "regex": _pattern,
    "choice": _choices,
    "json-schema": _schema,
}


def _text(line: dict[str, Any], field: str) -> str:
    value = line.get(field)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{field} is missing or holds no text")
    if len(value) > MOST_CHARACTERS:
        raise ValueError(f"{field} is longer than {MOST_CHARACTERS:,} characters")
    return value
