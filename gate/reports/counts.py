"""The answers to each task in one sentence, beside the baseline's; not yet escaped."""

from collections.abc import Iterator

from gate.records import AnswerStats, Report


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """Name and sentence for each task that generated answers or lost a document."""
    if report.evaluation is None:
        return
    theirs = report.baseline.answer_stats if report.baseline else ()
    known = {stats.task: stats for stats in theirs}
    for stats in report.evaluation.answer_stats:
        yield "Answers", f"{stats.task}: {sentence(stats, known.get(stats.task))}"


def sentence(stats: AnswerStats, baseline: AnswerStats | None) -> str:
    """For example: "541 asked, 541 scored, 0 lost; 12 ended at the limit (baseline 9); ..."."""
    parts = [f"{stats.asked:,} asked, {stats.scored:,} scored, {len(stats.lost):,} lost"]
    if stats.answered:
        parts.append(_beside(stats, baseline, "truncated", "ended at the limit"))
    for field, words in (
        ("empty", "empty"),
        ("thought", "with thinking"),
        ("cut_thinking", "ended inside thinking"),
    ):
        if getattr(stats, field) or (baseline is not None and getattr(baseline, field)):
            parts.append(_beside(stats, baseline, field, words))
    if stats.tokens_mean is not None:
        theirs = baseline.tokens_mean if baseline else None
        beside = "" if theirs is None else f" (baseline {theirs:,.0f})"
        parts.append(f"{stats.tokens_mean:,.0f} tokens on average{beside}")
    return "; ".join(parts)


def _beside(stats: AnswerStats, baseline: AnswerStats | None, field: str, words: str) -> str:
    said = f"{getattr(stats, field):,} {words}"
    return said if baseline is None else f"{said} (baseline {getattr(baseline, field):,})"
