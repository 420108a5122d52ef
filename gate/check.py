"""The whole gate, cheapest evidence first; the only file that knows the order.

lint -> preflight -> perplexity -> canary -> tasks -> speed -> verdict
"""

from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from gate import (
    agreement,
    answers,
    baseline,
    baselines,
    choice,
    diagnose,
    emulation,
    flips,
    privacy,
    released,
    reuse,
    serving,
    store,
    subjects,
    verdict,
)
from gate.backends import native
from gate.errors import BaselineMissingError, CheckpointError, NonFiniteLogitsError
from gate.journal import cache_directory
from gate.quantization import require_decodable
from gate.records import BaselineInfo, EvalResult, Report, Verdict
from gate.released import Found
from gate.repeat import repeated
from gate.request import Request, Subject
from gate.reuse import Kept
from gate.run import Run
from gate.settings import CheckpointRule


def measure(request: Request, runs: int = 1) -> EvalResult:
    """Evaluate a checkpoint as it is stored: what `gate eval` keeps, for example as a baseline.

    Args:
        runs: How often the model is run, to see how far it differs from itself.

    Raises:
        CheckpointError: Static validation found errors.
    """
    # Quantized at load is what is judged; what is kept is the model as it is stored.
    stored = request.settings.model_copy(update={"runtime_quantization": None})
    request = replace(request, settings=stored)
    request = choice.settled(request)
    run = Run(request, _sound(request))
    run.placement.require_answers(request.settings, advisory=True)
    with run:
        run.texts()
        run.tasks()
        run.keep_answers()
        run.speed()
        result = repeated(run, runs)
        request.store(result)
    return result


def prepared(request: Request) -> tuple[Run, EvalResult, BaselineInfo]:
    """A run that can be judged, before its model is loaded, and the baseline it is compared with.

    Raises:
        CheckpointError: Static validation found errors.
        BaselineError: Missing, not comparable, or too small to gate on.
    """
    request = choice.settled(request)
    subject = _sound(request)
    _require_limits_and_baseline(request, subject)
    run = Run(request, subject)
    return run, *_baseline(request, subject, run)


def check(request: Request) -> Report:
    """Judge a checkpoint from its bytes to the verdict, or by a kept verdict about the same."""
    request = choice.settled(request)
    subject = subjects.alone(request)
    subjects.refuse_unfetched(subject)
    last = released.find(request, subject)
    kept = Kept(cache_directory() / "verdicts", request, subject, last.measure(request))
    known = kept.report()
    if known is not None:
        report = reuse.again(known, subjects.report(request, subject, known.verdict))
        report = released.compared(report, request, last)
        request.store(report)
        return report
    report = _judged(request, subject, last)
    kept.keep(report)
    return report


def _judged(request: Request, subject: Subject, last: Found) -> Report:
    """Static validation that condemns it, or every measurement that the verdict needs."""
    if subject.lint.errors:
        report = subjects.report(request, subject, verdict.decide(subject.lint, ()))
        request.store(report)
        return report
    _require_decodable(request, subject)
    _require_limits_and_baseline(request, subject)
    run = Run(request, subject)
    stored, info = _baseline(request, subject, run)
    with run:
        decided, result = judge(run, stored)
        report = subjects.report(request, subject, decided, result, info)
        report = flips.explained(report, stored, run.backend.prompt)
        report = answers.explained(report, stored)
        report = privacy.without_texts(report, request.settings, request.root)
        report = released.decided(report, request, last)
        report = diagnose.offered(report, request, subject)
        request.store(report)
    # The model is gone, to leave its memory to this; the verdict is stored, whatever comes.
    diagnosed = diagnose.explained(report, request, subject)
    if diagnosed is not report:
        request.store(diagnosed)
    return diagnosed


def judge(run: "Run", stored: EvalResult) -> tuple[Verdict, EvalResult | None]:
    """The verdict, and what a reader should know beside it."""
    decided, result = _decided(run, stored)
    settings, comparisons, left_out = run.settings, decided.comparisons, run.left_out
    concerns = (
        *serving.concerns(run.backend.served, stored.engine, result.engine if result else None),
        *agreement.concerns(run.agreement, run.backend.kernel),
        *emulation.concerns(run.target),
        *verdict.concerns(settings, comparisons, left_out),
        *decided.concerns,
        *verdict.speed_concerns(settings.speed, stored.throughput, run.throughput),
    )
    suites = verdict.suite_outcomes(settings, comparisons, left_out)
    return decided.model_copy(update={"concerns": concerns, "suites": suites}), result


def _decided(run: "Run", stored: EvalResult) -> tuple[Verdict, EvalResult | None]:
    """Perplexity, canary, tasks: until the verdict is settled."""
    subject, full = run.subject, run.request.full
    try:
        run.texts(None if full else stored)
        comparisons = run.compare(stored, run.read)
        ends = not full or run.placement.streamed
        if ends and any(found.outcome == "fail" for found in comparisons):
            return verdict.decide(subject.lint, comparisons), run.result()
        run.read_answers()
        bad = run.canary(stored)
        if bad and not full:
            return verdict.decide(subject.lint, comparisons, bad), run.result()
        run.tasks(stored)
    except NonFiniteLogitsError as error:
        broken = Verdict(outcome="fail", reasons=(error.message,), fix=error.hint, stage="canary")
        return broken, None
    comparisons = run.compare(stored, run.measured)
    if run.settings.speed and (full or all(found.outcome != "fail" for found in comparisons)):
        run.speed()
        comparisons = run.compare(stored, run.measured)
    return verdict.decide(subject.lint, comparisons, bad), run.result()


def _sound(request: Request) -> Subject:
    """The checkpoint, without a lint error and in a format that can be decoded.

    Raises:
        CheckpointError: Static validation found errors.
    """
    subject = subjects.alone(request)
    if subject.lint.errors:
        first = subject.lint.errors[0]
        raise CheckpointError(
            f"{subject.checkpoint.source} is broken and was not measured: {first.message}",
            f"See all {len(subject.lint.errors)} errors: gate lint {subject.checkpoint.source}",
        )
    _require_decodable(request, subject)
    return subject


def _require_decodable(request: Request, subject: Subject) -> None:
    """Refuse what cannot be decoded, unless who runs it decodes it, too.

    Raises:
        UnknownFormatError: Naming the algorithms.
        SettingsError: A quantized checkpoint is to be quantized at load.
        BackendUnavailableError: transformers does not compute the format here.
    """
    if request.settings.backend == "native":
        native.require_able(subject.checkpoint, subject.form, request.settings)
    elif request.settings.backend not in {"server", "vllm"}:
        require_decodable(subject.checkpoint, subject.form)


def _require_limits_and_baseline(request: Request, subject: Subject) -> None:
    """What can be missing before anything is loaded.

    Raises:
        SettingsError: A limit must be given.
        BaselineMissingError: There is no baseline at all.
    """
    for metric in request.settings.perplexity_metrics:
        verdict.ratio_limit(metric, subject.weight_bits)
    path = _named_baseline(request, subject.rule)
    directory = request.root / baseline.DIRECTORY
    command = _baseline_command(request, subject.rule, path)
    if path is not None:
        baseline.load(path, command)
    elif request.settings.store is None and next(directory.glob("*.json"), None) is None:
        raise BaselineMissingError(f"{directory} holds no baseline", f"Make it: {command}")


def _named_baseline(request: Request, rule: CheckpointRule) -> Path | None:
    return request.baseline or (request.root / rule.baseline if rule.baseline else None)


def _baseline(request: Request, subject: Subject, run: Run) -> tuple[EvalResult, BaselineInfo]:
    """The stored baseline, found and comparable, with budgets that can be gated on.

    Raises:
        BaselineError: Missing, not comparable, or too small to gate on.
    """
    rule, conditions = subject.rule, run.conditions()
    path = _named_baseline(request, rule)
    command = _baseline_command(request, rule, path)
    if path is None:
        path, stored = _found(request, subject, conditions, command)
    else:
        stored = baseline.load(path, command)
        baseline.require_comparable(stored, conditions, path, command)
    baseline.require_young(stored.date, request.settings.max_age, command)
    verdict.check_baseline(request.settings, stored)
    run.readings.compare_with(stored, path.parent)
    info = BaselineInfo(
        path=request.shown(path),
        model=stored.model,
        revision=stored.revision,
        weights_digest=stored.weights_digest,
        date=stored.date,
        device=stored.device,
        fingerprint=baseline.fingerprint(stored),
        warnings=baseline.warnings(stored, conditions),
    )
    return stored, info


def _found(
    request: Request, subject: Subject, conditions: baseline.Conditions, command: str
) -> tuple[Path, EvalResult]:
    """The reference's baseline: beside the settings, else the newest one in their store.

    Raises:
        BaselineError: There is none, or none that fits.
        StoreError: The store cannot be read.
    """
    owner, here = _owner(subject), request.root / baseline.DIRECTORY
    try:
        return baseline.find(here, conditions, **owner, command=command)
    except BaselineMissingError:
        if request.settings.store is None or not any(owner.values()):
            raise
    kept = store.at(request.settings.store, request.root)
    place = baselines.fetched(kept, cache_directory() / "baselines", **owner)
    return baseline.find(place, conditions, **owner, command=command, newest=True)


class _Owner(TypedDict, total=False):
    """See `baseline.find`."""

    reference_digest: str | None
    model: str | None
    revision: str | None


def _owner(subject: Subject) -> _Owner:
    """By what a reference's baseline is known: its bytes, or its name on the hub."""
    if subject.reference is not None:
        return {"reference_digest": subject.reference_digest}
    name, _, revision = (subject.rule.reference or "").partition("@")
    return {"model": name or None, "revision": revision or None}


def _baseline_command(request: Request, rule: CheckpointRule, path: Path | None) -> str:
    """The one command that makes the missing baseline."""
    settings = str(request.settings_file) if request.settings_file else None
    made = baseline.eval_command(
        rule.reference or "REFERENCE", settings=settings, path=str(path) if path else None
    )
    shared = request.settings.store is not None and path is None
    return f"{made} && gate baseline push {made.rpartition(' -o ')[2]}" if shared else made
