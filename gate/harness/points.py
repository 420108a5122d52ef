"""What lm-eval's values are worth in points, where its aggregation is a mean."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gate.records import Part, Points

Aggregation = Callable[[list[Any]], float]

KIND = re.compile(r"\w{1,60}(?::\w{1,60})+", re.ASCII)
"""An instruction's name in IFEval and what follows it, such as `punctuation:no_comma`.

Anything else may be text of the document, such as a choice or an answer, which is no name.
"""


def _aggregates(aggregate: Aggregation, values: list[Any], to: float) -> bool:
    """What an aggregation does is asked of itself: tasks define their own under any name."""
    try:
        return math.isclose(aggregate(values), to)
    except (TypeError, ValueError, IndexError, ArithmeticError):
        return False


def by_document(aggregate: Aggregation) -> bool:
    """Whether it is the mean over documents."""
    values = {0.75: [1.0, 0.0, 1.0, 1.0], 0.375: [0.25, 0.5]}
    return all(_aggregates(aggregate, items, mean) for mean, items in values.items())


def by_instruction(aggregate: Aggregation) -> bool:
    """Whether it is the mean over all parts of all documents, as for IFEval's instructions."""
    return _aggregates(aggregate, [[True, False, True], [False]], 0.5)


def earned(
    metric: str, name: str, value: Any, aggregate: Aggregation, doc: Mapping[str, Any]
) -> Points:
    """What one document earned in one metric under one answer filter."""
    if by_instruction(aggregate):
        return Points(
            metric=metric,
            filter=name,
            score=sum(value),
            weight=len(value),
            parts=_parts(value, doc),
        )
    return Points(metric=metric, filter=name, score=float(value))


def _parts(values: Sequence[Any], doc: Mapping[str, Any]) -> tuple[Part, ...]:
    """Each value under the name that the document gives it; none where it names no parts."""
    for names in doc.values():
        if (
            isinstance(names, list)
            and len(names) == len(values)
            and all(isinstance(name, str) and KIND.fullmatch(name) for name in names)
        ):
            pairs = zip(names, values, strict=True)
            return tuple(Part(kind=kind, score=float(value)) for kind, value in pairs)
    return ()


def raw(points: Points, in_parts: bool) -> Any:
    """The value that earned these points."""
    if not in_parts:
        return points.score
    reached = round(points.score)
    return [True] * reached + [False] * (round(points.weight) - reached)
