"""The whole gate, cheapest evidence first; the only file that knows the order.

lint -> preflight -> perplexity -> canary -> tasks -> verdict
"""

import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from gate import baseline, drift, flips, harness, hub, preflight, privacy, reuse, subjects, verdict
from gate.errors import BaselineMissingError, CheckpointError, NonFiniteLogitsError
from gate.quantization import require_decodable
from gate.records import BaselineInfo, EvalResult, Report, Verdict
from gate.request import Look, Request, Subject
from gate.reuse import Kept
from gate.run import Run, cache_directory
from gate.settings import CheckpointRule, PerplexityText


def measure(request: Request) -> EvalResult:
    """Evaluate a checkpoint: what `gate eval` stores, for example as a baseline.

    Raises:
        CheckpointError: Static validation found errors.
    """
    subject = _open(request)
    if subject.lint.errors:
        first = subject.lint.errors[0]
        raise CheckpointError(
            f"{subject.checkpoint.source} is broken and was not measured: {first.message}",
            f"See all {len(subject.lint.errors)} errors: gate lint {subject.checkpoint.source}",
        )
    require_decodable(subject.checkpoint, subject.form)
    with Run(request, subject) as run:
        run.texts()
        run.tasks()
        result = run.result()
        request.store(result)
    return result


def check(request: Request) -> Report:
    """Judge a checkpoint from its bytes to the verdict, or by a kept verdict about the same."""
    subject = _open(request)
    _refuse_unfetched(subject)
    kept = Kept(cache_directory() / "verdicts", request, subject)
    known = kept.report()
    if known is not None:
        report = reuse.again(known, subjects.report(request, subject, known.verdict))
        request.store(report)
        return report
    report = _judged(request, subject)
    kept.keep(report)
    return report


def _judged(request: Request, subject: Subject) -> Report:
    """Static validation that condemns it, or every measurement that the verdict needs."""
    if subject.lint.errors:
        report = subjects.report(request, subject, verdict.decide(subject.lint, ()))
        request.store(report)
        return report
    require_decodable(subject.checkpoint, subject.form)
    _require_limits_and_baseline(request, subject)
    run = Run(request, subject)
    stored, info = _baseline(request, subject, run)
    with run:
        decided, result = _judge(run, stored)
        report = subjects.report(request, subject, decided, result, info)
        report = flips.explained(report, stored, run.backend.prompt)
        report = privacy.without_texts(report, request.settings, request.root)
        request.store(report)
    return report


def doctor(request: Request) -> Iterator[preflight.Check]:
    """Everything that must hold before a model is loaded, one check a line."""
    settings, root = request.settings, request.root

    def characters(text: PerplexityText) -> str:
        return f"{len(drift.read_text(text, root)):,} characters"

    def extra() -> Iterator[preflight.Check]:
        for run in settings.task_runs:
            probe = partial(
                harness.probe, run, root, settings.include_path, settings.allow_unsafe_tasks
            )
            yield preflight.attempt(f"task {run.task}", probe)
        for metric in settings.perplexity_metrics:
            text = metric.perplexity
            yield preflight.attempt(f"text {text.label}", partial(characters, text))
        if request.checkpoint:
            yield preflight.attempt("baseline", partial(_prepared, request))
            return
        for path in dict.fromkeys(rule.baseline for rule in settings.checkpoints if rule.baseline):
            yield preflight.attempt(f"baseline {path}", partial(_described, root / path))

    return preflight.doctor(extra)


def _described(path: Path) -> str:
    """A stored baseline, in words."""
    stored = baseline.load(path)
    return f"of {stored.model}, made {stored.date}"


def _prepared(request: Request) -> str:
    """Everything up to the model: the baseline's file if all of it holds."""
    subject = _open(request)
    _, info = _baseline(request, subject, Run(request, subject))
    return f"{info.path}, made {info.date}"


def _judge(run: "Run", stored: EvalResult) -> tuple[Verdict, EvalResult | None]:
    """Perplexity, canary, tasks: until the verdict is settled."""
    subject, full = run.subject, run.request.full
    try:
        run.texts()
        comparisons = run.compare(stored, run.settings.perplexity_metrics)
        if not full and any(found.outcome == "fail" for found in comparisons):
            return verdict.decide(subject.lint, comparisons), run.result()
        bad = run.canary(stored)
        if bad and not full:
            return verdict.decide(subject.lint, comparisons, bad), run.result()
        run.tasks(None if full else stored)
    except NonFiniteLogitsError as error:
        broken = Verdict(outcome="fail", reasons=(error.message,), fix=error.hint, stage="canary")
        return broken, None
    comparisons = run.compare(stored, run.measured)
    return verdict.decide(subject.lint, comparisons, bad), run.result()


def _open(request: Request) -> Subject:
    """The checkpoint, all of it on this machine."""
    named = request.checkpoint
    if named.endswith(subjects.WHOLE) and Path(named).is_file():
        (chosen,) = subjects.choose([named])
    else:
        chosen = subjects.Chosen(hub.resolve(named))
    return subjects.opened(request, chosen, Look())


def _refuse_unfetched(subject: Subject) -> None:
    """A checkout without its LFS files is not a bad model.

    Raises:
        CheckpointError: With the command that fetches them.
    """
    pointers = [p.file for p in subject.checkpoint.problems if p.rule == "lfs-pointer" and p.file]
    if not pointers:
        return
    path = subject.checkpoint.path
    git = ["git", "-C", str(path), "rev-parse", "--show-prefix"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return
    if found.returncode == 0:
        raise CheckpointError(
            f"{len(pointers)} files of {path} are Git LFS pointers, for example {pointers[0]}",
            f'Fetch them: git lfs pull --include "{found.stdout.strip()}**"',
        )


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
    elif next(directory.glob("*.json"), None) is None:
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
        path, stored = baseline.find(
            request.root / baseline.DIRECTORY, conditions, **_owner(subject), command=command
        )
    else:
        stored = baseline.load(path, command)
        baseline.require_comparable(stored, conditions, path, command)
    verdict.check_budgets(request.settings, stored)
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


def _owner(subject: Subject) -> dict[str, str | None]:
    """By what a reference's baseline is known: its bytes, or its name on the hub."""
    if subject.reference is not None:
        return {"reference_digest": subject.reference_digest}
    name, _, revision = (subject.rule.reference or "").partition("@")
    return {"model": name or None, "revision": revision or None}


def _baseline_command(request: Request, rule: CheckpointRule, path: Path | None) -> str:
    """The one command that makes the missing baseline."""
    settings = str(request.settings_file) if request.settings_file else None
    return baseline.eval_command(
        rule.reference or "REFERENCE", settings=settings, path=str(path) if path else None
    )
