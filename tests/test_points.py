"""What a document's value is worth, and what the document calls its parts."""

from typing import Any

import pytest

from gate.harness.points import earned, raw


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def mean_of_parts(values: list[list[bool]]) -> float:
    return mean([value for document in values for value in document])


VALUES = [True, False]


def kinds(doc: dict[str, Any], values: list[bool] = VALUES) -> list[str]:
    points = earned("acc", "none", values, mean_of_parts, doc)
    assert (points.score, points.weight) == (sum(values), len(values))
    assert [part.score for part in points.parts] in ([], [float(value) for value in values])
    assert raw(points, in_parts=True) == sorted(values, reverse=True)
    return [part.kind for part in points.parts]


def test_the_list_that_names_as_many_parts_is_found():
    named = ["punctuation:no_comma", "fr:length_constraints:number_words"]
    assert kinds({"prompt": "p", "kwargs": [{}, {}], "instruction_id_list": named}) == named


@pytest.mark.parametrize(
    "names",
    [
        ["punctuation:no_comma"],
        ["Paris", "London"],
        ["The answer: Paris", "b:c"],
        ["a:b", 3],
        ["a:b", "x" * 70 + ":y"],
        "ab",
    ],
)
def test_texts_of_a_document_are_no_names(names: object):
    assert kinds({"choices": names}) == []


def test_a_plain_value_has_no_parts():
    points = earned("acc", "none", 1, mean, {"instruction_id_list": ["a:b"]})
    assert (points.score, points.weight, points.parts) == (1.0, 1.0, ())
