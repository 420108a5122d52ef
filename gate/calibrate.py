"""How often the gate judges the same bytes otherwise: its own rate of false alarms.

A checkpoint is judged again and again by the very order of `gate check`, with the model loaded
once: what differs from run to run is who shares a batch with whom. Or other documents are drawn
from the stored results of one run, which needs no model.
"""

import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

from gate import __version__, check, compare, terminal, verdict
from gate.backends.replay import Replay
from gate.errors import BaselineError
from gate.evaluate import Backend, Evaluation
from gate.journal import Journal
from gate.records import (
    Calibration,
    CalibrationRun,
    Comparison,
    EvalResult,
    LintResult,
    Outcome,
    Rate,
    Spread,
    Verdict,
    now,
)
from gate.repeat import again
from gate.request import Request
from gate.run import Run
from gate.settings import Settings
from gate.stats import rerun
from gate.stopping import Stopping

RUNS = 20
"""Without a single other verdict, at most 14 % of runs have one, with 95 %."""

DRAWS = 1000
"""A share of 5 % is told to within 1.4 %."""

SEVERITY: tuple[Outcome, ...] = ("fail", "inconclusive", "pass")


def calibrate(request: Request, runs: int = RUNS) -> Calibration:
    """Judge a checkpoint several times on all documents, and see what stopping early had said.

    Args:
        request: The checkpoint, its baseline and the settings.
        runs: How often it is judged; each time with other neighbours in every batch.

    Raises:
        CheckpointError: Static validation found errors: that verdict never changes.
        BaselineError: Missing, not comparable, or too small to gate on.
        SettingsError: Stored answers are judged, which never change.
    """
    request = replace(request, full=True, reuse=None)
    run, stored, info = check.prepared(request)
    with run:
        judged = [_judged(run, stored)]
        for number in range(1, runs):
            with again(run, number) as other:
                judged.append(_judged(other, stored))
        outcomes = Counter(made.outcome for made, _ in judged)
        early = [made for made, _ in judged if made.early_outcome is not None]
        usual = max(SEVERITY, key=lambda outcome: outcomes[outcome])
        found = Calibration(
            gate_version=__version__,
            method="rerun",
            checkpoint=run.subject.checkpoint.source,
            weights_digest=run.digest,
            baseline=info.path,
            baseline_digest=stored.weights_digest,
            settings=request.settings.model_dump(mode="json"),
            runs=tuple(made for made, _ in judged),
            outcomes=dict(outcomes),
            verdict=usual,
            differing=_rate(runs - outcomes[usual], runs),
            failing=_rate(outcomes["fail"], runs),
            early_disagreed=_rate(sum(m.early_outcome != m.outcome for m in early), len(early))
            if early
            else None,
            spreads=_spreads([comparisons for _, comparisons in judged]),
            date=now(),
            duration_s=round(time.monotonic() - run.subject.started, 1),
        )
        request.store(found)
    return found


def resample(
    result: Path, stored: Path, settings: Settings, draws: int = DRAWS, seed: int = 0
) -> Calibration:
    """Judge a stored pair of results on other draws of its documents and windows; runs no model.

    Documents are drawn with replacement, both models' scores of one together: the bootstrap. It
    shows what another suite of the same kind and size would have said.

    Args:
        result: The candidate's, of `gate eval` or a JSON report.
        stored: The baseline.
        settings: What gates.
        draws: How many.
        seed: Of the draws.

    Raises:
        BaselineError: Not comparable, stopped early, or too small to gate on.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 6.
    """
    started = time.monotonic()
    base, ((_, candidate, seen),) = compare.compare(stored, [result], settings)
    stopped = next((found.task for found in seen if found.early_stop is not None), None)
    if stopped is not None:
        raise BaselineError(
            f"{result}: {stopped} was stopped early, so its other documents are not known",
            f"Measure all of them: gate eval {candidate.model} -o RESULT",
        )
    chosen = settings.model_copy(update={"metrics": compare.measured(settings, base, candidate)})
    usual = verdict.decide(_lint(candidate), seen).outcome
    drawn = list(_drawn(chosen, base, candidate, draws, seed))
    outcomes = Counter(verdict.decide(_lint(candidate), made).outcome for made in drawn)
    return Calibration(
        gate_version=__version__,
        method="resample",
        checkpoint=str(result),
        weights_digest=candidate.weights_digest,
        baseline=str(stored),
        baseline_digest=base.weights_digest,
        settings=settings.model_dump(mode="json"),
        outcomes=dict(outcomes),
        verdict=usual,
        differing=_rate(len(drawn) - outcomes[usual], len(drawn)),
        failing=_rate(outcomes["fail"], len(drawn)),
        spreads=_spreads(drawn),
        refused=draws - len(drawn),
        date=now(),
        duration_s=round(time.monotonic() - started, 1),
    )


def _judged(run: Run, stored: EvalResult) -> tuple[CalibrationRun, tuple[Comparison, ...]]:
    """One verdict on all documents, and what stopping early would have made of the same."""
    started = time.monotonic()
    decided, result = check.judge(run, stored)
    early, asked = _stopped_early(run, stored, decided, result) if result else (None, None)
    made = CalibrationRun(
        outcome=decided.outcome,
        reason=decided.reasons[0],
        early_outcome=early,
        early_documents=asked,
        documents=sum(len(done) for done in run.evaluation.documents.values()),
        duration_s=round(time.monotonic() - started, 1),
    )
    return made, decided.comparisons


def _stopped_early(
    run: Run, stored: EvalResult, decided: Verdict, result: EvalResult
) -> tuple[Outcome | None, int | None]:
    """The verdict had the tasks been stopped, and after how many documents; None where that is off.

    The order is that of the run, and so are the batches after which the rule is asked.
    """
    if run.settings.early_stop == "off" or not result.tasks:
        return None, None
    asked = {found.task for found in result.tasks}
    setups = tuple(setup for setup in result.setups if setup.task in asked)
    replay = _Asked(result.model_copy(update={"setups": setups}), run.backend)
    evaluation = Evaluation(
        replay, run.seed, run.evaluation.batch_size, Journal(None), terminal.silent
    )
    stop = Stopping(run.settings, stored, evaluation.orders)
    for setup in setups:
        if setup.output_type == "generate_until" and run.settings.canary_prompts:
            evaluation.run(setup.task, run.settings.canary_prompts)
        evaluation.run(setup.task, stop=stop)
    seen = result.model_copy(update={"tasks": evaluation.task_results()})
    chosen = run.settings.model_copy(update={"metrics": run.measured})
    comparisons = verdict.compare(chosen, stored, seen, run.subject.weight_bits)
    outcome = verdict.decide(run.subject.lint, comparisons, decided.canary).outcome
    return outcome, sum(len(done) for done in evaluation.documents.values())


class _Asked(Replay):
    """Stored answers to prompts that are at hand: their lengths say what is asked together."""

    def __init__(self, stored: EvalResult, backend: Backend) -> None:
        super().__init__(stored, stored.weights_digest)
        self.backend = backend

    def prompt(self, task: str, doc_id: int) -> str | None:
        return self.backend.prompt(task, doc_id)


def _lint(result: EvalResult) -> LintResult:
    """What lint would say of a checkpoint that was measured: no error, or it had not been."""
    return LintResult(format=result.format)


def _drawn(
    settings: Settings, base: EvalResult, candidate: EvalResult, draws: int, seed: int
) -> Iterator[tuple[Comparison, ...]]:
    """The comparisons of each draw; none where it leaves the baseline too few points for any."""
    for one, other in _draws(base, candidate, draws, seed):
        with suppress(BaselineError):
            yield verdict.compare(settings, one, other, candidate.weight_bits)


def _draws(
    base: EvalResult, candidate: EvalResult, draws: int, seed: int
) -> Iterator[tuple[EvalResult, EvalResult]]:
    """Both results on the same other documents and windows."""
    chance = random.Random(seed)  # noqa: S311 (no secret hangs on it)
    sizes = {found.task: len(found.samples) for found in candidate.tasks}
    texts = {found.name: len(found.window_nll) for found in candidate.perplexities}
    for _ in range(draws):
        documents = {name: chance.choices(range(n), k=n) for name, n in sizes.items()}
        windows = {name: chance.choices(range(n), k=n) for name, n in texts.items()}
        yield _on(base, documents, windows), _on(candidate, documents, windows)


def _on(
    result: EvalResult, documents: dict[str, list[int]], windows: dict[str, list[int]]
) -> EvalResult:
    """A result on these documents of each task and windows of each text, named by position."""
    tasks = tuple(
        task.model_copy(
            update={"samples": tuple(task.samples[i] for i in documents[task.task]), "parts": ()}
        )
        for task in result.tasks
        if task.task in documents
    )
    perplexities = tuple(
        text.model_copy(
            update={"window_nll": tuple(text.window_nll[i] for i in windows[text.name])}
        )
        for text in result.perplexities
        if text.name in windows
    )
    return result.model_copy(update={"tasks": tasks, "perplexities": perplexities})


def _rate(count: int, n: int) -> Rate:
    low, high = rerun.proportion(count, n)
    return Rate(count=count, n=n, low=low, high=high)


def _spreads(judged: Sequence[Sequence[Comparison]]) -> tuple[Spread, ...]:
    """Retention of each gating metric over the verdicts."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for comparison in (c for comparisons in judged for c in comparisons):
        if comparison.outcome is not None:
            key = comparison.task, comparison.metric, str(comparison.threshold)
            found.setdefault(key, []).append(comparison.retention)
    return tuple(
        Spread(
            task=task,
            metric=metric,
            threshold=threshold,
            mean=fmean(values) if finite else None,
            sd=stdev(values) if finite and len(values) > 1 else None,
            low=min(values) if finite else None,
            high=max(values) if finite else None,
        )
        for (task, metric, threshold), values in found.items()
        for finite in [all(map(math.isfinite, values))]
    )
