"""JSON Schemas of the user's own: they fetch nothing, and validating ends."""

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from gate.harness.own import patterns

MOST_REFERENCES = 10_000
"""References that are followed for one answer: a few definitions can refer to each other for ever.
"""

REFUSED = frozenset(
    {
        # Matched by Python's own expressions, in three places.
        "patternProperties",
        # Followed without being counted.
        "$dynamicRef",
        "$recursiveRef",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
"""What a schema may not say, since answers could make it run for ever."""


def require_sound(schema: Any) -> None:
    """Make sure that it is a schema, and one that can be used here.

    Raises:
        ValueError: It is none, or says what is not looked at.
    """
    from jsonschema.exceptions import SchemaError

    if not isinstance(schema, dict) or not schema:
        raise ValueError("answer is no JSON Schema")
    if not isinstance(schema.get("$schema", ""), str):
        raise ValueError("its $schema is no text")
    try:
        _draft(schema).check_schema(schema)
        for keyword, value in _keywords(schema):
            _require_bounded(schema, keyword, value)
    except SchemaError as error:
        raise ValueError(f"its schema is none: {error.message[:200]}") from error
    except RecursionError as error:
        raise ValueError("its schema is nested too deeply") from error


def _require_bounded(schema: dict[str, Any], keyword: str, value: Any) -> None:
    """Refuse what cannot be used here, one keyword at a time."""
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    if keyword in REFUSED:
        raise ValueError(f"its schema holds {keyword}, which is not supported")
    if keyword == "pattern" and isinstance(value, str):
        patterns.compiled(value)
    if keyword == "$ref" and isinstance(value, str):
        registry = Registry().with_resource("", DRAFT202012.create_resource(schema))
        try:
            registry.resolver().lookup(value)
        except (Unresolvable, ValueError) as error:
            raise ValueError(f"its schema refers to {value[:80]!r}, which is not in it") from error


def _keywords(schema: Any) -> Iterator[tuple[str, Any]]:
    """Every key of every object in it, and its value."""
    pending = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield from node.items()
            pending += node.values()
        elif isinstance(node, list):
            pending += node


def satisfies(text: str, schema: str) -> bool:
    """Whether an answer is a JSON document that a schema allows, alone or in one code fence.

    Args:
        text: What the model wrote.
        schema: As JSON.
    """
    from referencing.exceptions import Unresolvable

    try:
        document = json.loads(_unfenced(text), parse_constant=_refuse)
        return bool(_validator(schema).is_valid(document))
    except (ValueError, ArithmeticError, RecursionError, Unresolvable):
        return False


def _unfenced(text: str) -> str:
    """The inside of a code fence, where the whole answer is one."""
    lines = text.strip().splitlines()
    if len(lines) > 2 and lines[0].startswith("```") and lines[-1].strip() == "```":
        return "\n".join(lines[1:-1])
    return text.strip()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


@lru_cache(maxsize=4096)
def _parsed(schema: str) -> Any:
    return json.loads(schema)


def _validator(schema: str) -> Any:
    """One for a single answer: it counts the references that it follows."""
    from jsonschema.validators import extend
    from referencing import Registry

    wanted = _parsed(schema)
    draft = _draft(wanted)
    followed = 0

    def reference(validator: Any, ref: str, instance: Any, within: Any) -> Iterator[Any]:
        nonlocal followed
        followed += 1
        if followed > MOST_REFERENCES:
            raise RecursionError("the schema refers to itself without end")
        yield from draft.VALIDATORS["$ref"](validator, ref, instance, within)

    bounded = extend(draft, {"$ref": reference, "pattern": _pattern})
    # An empty registry fetches nothing.
    return bounded(wanted, registry=Registry())


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if isinstance(instance, str) and not patterns.occurs(pattern, instance):
        yield ValidationError("another pattern")


def _draft(schema: dict[str, Any]) -> Any:
    """The edition of the standard that a schema names; the newest where it names none."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for

    return validator_for(schema, default=Draft202012Validator)
