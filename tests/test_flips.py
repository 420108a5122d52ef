"""Which documents and which kinds of instruction moved, and which of them a report holds."""

import math
from collections.abc import Sequence
from decimal import Decimal

import pytest
import results
from hypothesis import given
from hypothesis import strategies as st

from gate import flips, verdict
from gate.records import Answer, EvalResult, LintResult, Part, Report, TaskResult
from gate.settings import Settings, TaskMetric

LINT = LintResult(format="modelopt", algorithms=("NVFP4",))


def limited(metric: str, limit: str | None, task: str = "ifeval") -> TaskMetric:
    return TaskMetric(task=task, metric=metric, min_retention=Decimal(limit) if limit else None)


STRICT = limited("inst_level_strict_acc", "0.95")


def explained(
    base: Sequence[TaskResult],
    ours: Sequence[TaskResult],
    metrics: Sequence[TaskMetric] = (STRICT,),
    **changes: object,
) -> Report:
    """The report of a candidate with these results against such a baseline."""
    stored = results.result(*base, **changes)
    candidate = results.result(*ours, format="modelopt", **changes)
    comparisons = verdict.compare(Settings(metrics=tuple(metrics)), stored, candidate, 4)
    report = Report(
        gate_version="0.1.0", checkpoint="m", revision=None, command="gate check m", settings={},
        lint=LINT, size=None, evaluation=candidate, baseline=None,
        verdict=verdict.decide(LINT, comparisons), date="2026-11-21T11:00:00Z", duration_s=1.0,
    )  # fmt: skip
    return flips.explained(report, stored, lambda task, doc_id: f"{task} prompt {doc_id}")


def moved(report: Report) -> list[tuple[int, bool]]:
    return [(flip.doc_id, flip.gained) for flip in report.flips]


def test_losses_come_before_gains_and_larger_before_smaller():
    base = results.task([1.0, 0.0, 3.0, 1.0, 2.0] + [1.0] * 200)
    ours = results.task([0.0, 1.0, 0.0, 1.0, 3.0] + [1.0] * 200)
    report = explained([base], [ours])
    assert moved(report) == [(2, False), (0, False), (1, True), (4, True)]


def test_of_an_error_rate_less_is_a_gain():
    base = results.task([0.0, 1.0] + [1.0] * 198, higher_is_better=False)
    ours = results.task([1.0, 0.0] + [1.0] * 198, higher_is_better=False)
    assert moved(explained([base], [ours])) == [(0, False), (1, True)]


def test_texts_are_taken_from_both_models():
    def written(*texts: str) -> dict[str, tuple[Answer, ...]]:
        return {"ifeval": tuple(
            Answer(doc_id=i, text=text, tokens=1, finish="stop") for i, text in enumerate(texts)
        )}  # fmt: skip

    report = explained([results.task([1.0] * 200)], [results.task([0.0] + [1.0] * 199)])
    assert report.evaluation is not None
    stored = results.result(results.task([1.0] * 200), answers=written("before"))
    measured = report.evaluation.model_copy(update={"answers": written("after")})
    report = report.model_copy(update={"evaluation": measured})
    (flip,) = flips.explained(report, stored, lambda task, doc_id: "asked").flips
    assert (flip.prompt, flip.baseline, flip.candidate) == ("asked", "before", "after")
    assert (flip.task, flip.metric) == ("ifeval", "inst_level_strict_acc")


@given(st.integers(0, 40), st.integers(0, 40))
def test_at_most_ten_are_held_and_some_gains_where_there_are_any(losses: int, gains: int):
    same = [1.0] * 400
    base = results.task([1.0] * losses + [0.0] * gains + same)
    ours = results.task([0.0] * losses + [1.0] * gains + same)
    found = [gained for _, gained in moved(explained([base], [ours]))]
    assert len(found) == min(losses + gains, flips.MOST)
    assert sum(found) >= min(gains, flips.MOST_GAINS)
    assert found == sorted(found)


def test_several_tasks_share_the_room_and_the_failed_metric_decides():
    names = ("ifeval", "arc", "unmoved")
    metrics = [limited("acc", "0.95", name) for name in names]
    metrics.insert(0, limited("acc_norm", None, "arc"))
    base = [results.task([1.0] * 200, name=name, metric="acc") for name in names]
    ours = [results.task([0.0] * 30 + [1.0] * 170, name=n, metric="acc") for n in names[:2]]
    setups = tuple(results.setup(task=name) for name in names)
    norm = results.task([1.0] * 200, name="arc", metric="acc_norm")
    report = explained([*base, norm], [*ours, base[2], norm], metrics, setups=setups)
    assert [flip.task for flip in report.flips] == ["ifeval"] * 5 + ["arc"] * 5
    assert {flip.metric for flip in report.flips} == {"acc"}


def test_a_score_that_is_no_number_is_no_flip():
    base = results.task([1.0] * 200)
    ours = results.task([math.nan] + [1.0] * 199)
    assert moved(explained([base], [ours])) == []


def with_parts(result: TaskResult, parts: Sequence[Sequence[tuple[str, float]]]) -> TaskResult:
    made = tuple(tuple(Part(kind=k, score=score) for k, score in document) for document in parts)
    scores = [sum(part.score for part in document) for document in made]
    samples = tuple(
        sample.model_copy(update={"score": score, "weight": float(len(document))})
        for sample, score, document in zip(result.samples, scores, made, strict=True)
    )
    return result.model_copy(update={"samples": samples, "parts": made})


def parts(comma: float, words: float) -> list[list[tuple[str, float]]]:
    return [
        [("punctuation:no_comma", comma), ("length:words", words)],
        [("length:words", 1.0)],
        *[[("keywords:any", 1.0)]] * 200,
    ]


def test_kinds_of_instruction_are_counted_over_documents_the_worst_first():
    blank = results.task([0.0] * 202)
    base, ours = with_parts(blank, parts(1.0, 0.0)), with_parts(blank, parts(0.0, 1.0))
    report = explained([base], [ours])
    assert [(i.kind, i.n, i.baseline, i.candidate) for i in report.instructions] == [
        ("punctuation:no_comma", 1, 1.0, 0.0),
        ("length:words", 2, 1.0, 2.0),
    ]
    assert report.flips == (), "one part was lost and another gained"
    ours = with_parts(blank, parts(0.0, 0.0))
    (flip,) = explained([base], [ours]).flips
    assert flip.parts == ("punctuation:no_comma",)


def test_a_baseline_of_before_parts_were_kept_tells_no_kinds():
    blank = results.task([0.0] * 202)
    ours = with_parts(blank, parts(0.0, 0.0))
    base = with_parts(blank, parts(1.0, 0.0)).model_copy(update={"parts": ()})
    report = explained([base], [ours])
    assert report.instructions == ()
    assert [flip.parts for flip in report.flips] == [()]


def test_a_report_without_an_evaluation_stays_as_it_is():
    report = explained([results.task([1.0] * 200)], [results.task([1.0] * 200)])
    bare = report.model_copy(update={"evaluation": None})
    stored: EvalResult = results.result(results.task([1.0] * 200))
    assert flips.explained(bare, stored, lambda task, doc_id: pytest.fail("asked")) == bare
