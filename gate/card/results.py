"""What a card says of a report: in its metadata as the hub shows results, and in words."""

import math
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from gate.card.metadata import FIX
from gate.errors import CardError
from gate.records import Report, Verdict
from gate.reports import markdown, markup, metrics, wording
from gate.reports.wording import plain
from gate.settings import PIN
from gate.verdict import DRIFT, MEAN, PERPLEXITY, SPEED

REPORT_JSON, REPORT_MARKDOWN = "quant-gate/report.json", "quant-gate/report.md"
EVALUATOR = "quant-gate"
"""Marks the results in a model index that the next push replaces."""

BASE, RELATION, TAGS, INDEX = KEYS = ("base_model", "base_model_relation", "tags", "model-index")
"""Of the metadata, which a push sets."""

PLAIN_BITS = 16
"""A weight of fewer bits is quantized."""


def section(report: Report) -> Iterator[str]:
    """What a reader of the card wants to know, in Markdown."""
    verdict, base = report.verdict, report.baseline
    icon, word = markdown.ICONS[verdict.outcome], wording.verdict_word(report)
    yield f"## Evaluated by quant-gate\n\n{icon} **{word}**"
    yield from (f"\n{markup.escape(reason)}" for reason in verdict.reasons[:1])
    if verdict.comparisons:
        yield f"\n{_table(verdict)}"
    if base is not None:
        name = f"{_baseline(report)}@{base.revision}" if base.revision else _baseline(report)
        yield f"\nBaseline: {markup.code(name)}, measured on {markup.escape(base.date)}."
    yield (
        f"\nMeasured on {markup.escape(report.date)} with quant-gate "
        f"{markup.escape(report.gate_version)}: [report]({REPORT_MARKDOWN}), "
        f"[all figures]({REPORT_JSON}). Check that these files are the ones that were measured:\n\n"
        "```\ngate verify . --statement quant-gate/statement.json\n```"
    )


def _baseline(report: Report) -> str:
    """The baseline's name, not where a directory lies on somebody's machine."""
    model = report.baseline.model if report.baseline else "the baseline"
    return PurePath(model).name if PurePath(model).is_absolute() else model


def _table(verdict: Verdict) -> str:
    cells = map(metrics.cells, verdict.comparisons)
    rows = [[markup.code(name), *map(markup.escape, row)] for name, *row in cells]
    return markup.table(metrics.COLUMNS, rows)


def changes(before: Mapping[str, Any], report: Report) -> Iterator[tuple[str, Any]]:
    """Keys of the metadata that are new or different: what the user wrote is not overruled."""
    result = report.evaluation
    quantized = result is not None and (result.weight_bits or PLAIN_BITS) < PLAIN_BITS
    base = report.baseline
    # Without a revision it may be a directory that is called like somebody's repository.
    if base is not None and PIN.fullmatch(f"{base.model}@{base.revision or ''}"):
        if BASE not in before:
            yield BASE, base.model
        if quantized and RELATION not in before:
            yield RELATION, "quantized"
    tags = before.get(TAGS) or []
    tags = tags if isinstance(tags, list) else [tags]
    wanted = ["quantized", EVALUATOR] if quantized else [EVALUATOR]
    if missing := [tag for tag in wanted if tag not in tags]:
        yield TAGS, [*tags, *missing]
    index = _index(before.get(INDEX), report)
    if index:
        yield INDEX, index


def _index(known: Any, report: Report) -> list[Any]:
    """A model index with our results of this report in place of those of an earlier one.

    Source: https://github.com/huggingface/hub-docs/blob/main/modelcard.md (model-index).
    """
    from huggingface_hub.repocard_data import eval_results_to_model_index

    name = plain(PurePath(report.checkpoint).name or report.checkpoint)
    found = list(_results(report))
    if not known:
        return list(eval_results_to_model_index(name, found)) if found else []
    try:
        kept = [
            {**model, "results": [r for r in model["results"] if not _ours(r)]} for model in known
        ]
    except (TypeError, KeyError) as error:
        raise CardError("model-index of README.md is not as the hub defines it", FIX) from error
    kept[0]["results"] += eval_results_to_model_index(name, found)[0]["results"]
    return kept


def _ours(result: Any) -> bool:
    match result:
        case {"dataset": {"args": {"evaluator": str(evaluator)}}}:
            return evaluator == EVALUATOR
    return False


def _results(report: Report) -> Iterator[Any]:
    """Each metric that was measured to its end, as the hub shows it: its value, what it kept."""
    from huggingface_hub import EvalResult

    for found in report.verdict.comparisons:
        if found.early_stop is not None or found.task in {DRIFT, MEAN, SPEED}:
            continue
        dataset, metric = plain(found.task), plain(found.metric)
        if found.task == PERPLEXITY:
            dataset, metric = metric, dataset
        kept = "retention" if found.higher_is_better else "ratio"
        figures = [
            (metric, metric, found.candidate),
            (kept, f"{metric}, {kept} against {plain(_baseline(report))}", found.retention),
        ]
        for kind, shown, value in figures:
            if math.isfinite(value):
                yield EvalResult(
                    task_type="text-generation",
                    dataset_type=dataset,
                    dataset_name=dataset,
                    dataset_args={"evaluator": EVALUATOR, "documents": found.n},
                    metric_type=kind,
                    metric_name=shown,
                    metric_value=round(value, 6),
                )
