"""Stored results beside one another: the table of variants."""

from collections.abc import Sequence
from pathlib import Path

from gate import baseline, records, verdict
from gate.errors import BaselineError, GateError
from gate.records import Comparison, EvalResult, Report
from gate.settings import Metric, PerplexityMetric, PerplexityText, Settings, TaskMetric


def compare(
    baseline_path: Path, results: Sequence[Path], settings: Settings
) -> tuple[EvalResult, list[tuple[str, EvalResult, tuple[Comparison, ...]]]]:
    """Stored results against a stored baseline: name, result and comparisons of each.

    Args:
        results: Files of `gate eval`, or JSON reports of `gate check`.
    """
    stored = baseline.load(baseline_path)
    rows = []
    for path in results:
        result = _stored_result(path)
        baseline.require_comparable(stored, baseline.Conditions.of(result), baseline_path)
        chosen = settings.model_copy(update={"metrics": measured(settings, stored, result)})
        bits = result.weight_bits
        rows.append((path.stem, result, verdict.compare(chosen, stored, result, bits)))
    return stored, rows


def _stored_result(path: Path) -> EvalResult:
    """The result in a file of `gate eval`, or the one inside a report."""
    try:
        result = records.read(path, EvalResult)
    except GateError:
        evaluation = records.read(path, Report).evaluation
    else:
        baseline.require_whole(result, path)
        return result
    if evaluation is None:
        raise BaselineError(
            f"{path} is a report without an evaluation", "Name a result of gate eval."
        )
    return evaluation


def measured(settings: Settings, stored: EvalResult, result: EvalResult) -> tuple[Metric, ...]:
    """What both results hold, with the settings' limits where they state some."""
    tasks = {(t.task, t.metric) for t in stored.tasks} & {(t.task, t.metric) for t in result.tasks}
    texts = {p.name for p in stored.perplexities} & {p.name for p in result.perplexities}
    limited: list[Metric] = []
    for metric in settings.metrics:
        if isinstance(metric, PerplexityMetric):
            held = metric.perplexity.label in texts
            texts.discard(metric.perplexity.label)
        else:
            held = (metric.task, metric.metric) in tasks
            tasks.discard((metric.task, metric.metric or ""))
        limited += [metric] if held else []
    return (
        *limited,
        *(TaskMetric(task=task, metric=metric) for task, metric in sorted(tasks)),
        *(PerplexityMetric(perplexity=_text_named(name)) for name in sorted(texts)),
    )


def _text_named(name: str) -> PerplexityText:
    """A text that reports call `name`: a file, or a data set's split."""
    dataset, _, split = name.rpartition("/")
    return PerplexityText(dataset=dataset, split=split) if dataset else PerplexityText(file=name)
