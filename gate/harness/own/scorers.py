"""What an answer to a question of the user's own earns: 1 or 0. The task files name these."""

from collections.abc import Mapping, Sequence
from typing import Any

from gate.harness.own import patterns, schemas


def exact(doc: Mapping[str, Any], responses: Sequence[str]) -> dict[str, float]:
    """It is one of the right answers, but for white space around it."""
    answers = {answer.strip() for answer in doc["answer"]}
    return {"exact": float(responses[0].strip() in answers)}


def contains(doc: Mapping[str, Any], responses: Sequence[str]) -> dict[str, float]:
    """One of the right answers occurs in it, whatever the case of its letters."""
    text = responses[0].casefold()
    return {"contains": float(any(answer.strip().casefold() in text for answer in doc["answer"]))}


def regex(doc: Mapping[str, Any], responses: Sequence[str]) -> dict[str, float]:
    """The pattern is found in it."""
    return {"regex": float(patterns.occurs(doc["answer"][0], responses[0]))}


def json_schema(doc: Mapping[str, Any], responses: Sequence[str]) -> dict[str, float]:
    """It is a JSON document that the schema allows."""
    return {"json-schema": float(schemas.satisfies(responses[0], doc["answer"][0]))}
