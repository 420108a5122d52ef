"""What is told of a model that was run more than once; not yet escaped."""

from gate.records import Comparison, EvalResult

MIN_SHARE = 0.001
"""A probability below this is stated as a bound."""


def rerun(comparison: Comparison) -> str | None:
    """How likely another run is judged otherwise; None where the baseline was not repeated."""
    flips, seen = comparison.rerun_flips, comparison.rerun
    if flips is None or seen is None:
        return None
    task = comparison.budget is not None
    if not task and flips < MIN_SHARE:
        # Every window moves a little, and their mean by far less than any limit.
        return None
    if task and not seen.flips:
        bound, why = "at most ", f"the baseline's {seen.runs} runs agreed on every document"
    else:
        bound = "under " if flips < MIN_SHARE else ""
        what = "documents" if task else "windows"
        why = f"the baseline's own runs differ on {100 * seen.flips:.1f} % of {what}"
    return (
        f"Another run would put {comparison.task} {comparison.metric} on the other side of "
        f"its limit in {bound}{100 * max(flips, MIN_SHARE):.1f} % of cases ({why})."
    )


def facts(result: EvalResult) -> list[tuple[str, str]]:
    """How far the model differed from itself, where it was run again."""
    told = [
        f"{seen.task} {seen.metric} differs on {100 * seen.flips:.1f} % of {seen.n:,}"
        for seen in result.reruns
    ]
    return [(f"{result.reruns[0].runs} runs", "; ".join(told))] if told else []
