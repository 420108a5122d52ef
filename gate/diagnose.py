"""Where does it hurt? The modules of a checkpoint that carry its damage, and what would heal it."""

import glob
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal

from gate import __version__, diagnosis, drift, hub, subjects, verdict
from gate.architecture import LAYER, NOT_QUANTIZED, architecture, layer_index
from gate.checkpoint import Checkpoint
from gate.errors import CheckpointError, GateError, NonFiniteLogitsError, SettingsError
from gate.lint import walk
from gate.quantization import FLOAT_DTYPES, require_decodable
from gate.records import Concern, Diagnosis, DiagnosisReport, Exclusion, Report, now
from gate.request import Request, Subject
from gate.settings import PerplexityMetric


def diagnose(
    request: Request,
    reference: str | None = None,
    *,
    windows: int | None = None,
    limit: Decimal | None = None,
) -> DiagnosisReport:
    """Put the modules of a checkpoint back to its reference, and see what damage goes away.

    Args:
        request: The checkpoint, and the settings with the text that is read.
        reference: The unquantized checkpoint; None for the one that the settings name.
        windows: How many windows of the text are read; None for enough.
        limit: Perplexity ratio that a proposed set must meet; None for that of the settings.

    Raises:
        SettingsError: There is no reference, or no text.
        CheckpointError: Static validation found what stops decoding, or the two do not fit.
        BackendError: The model could not be run.
    """
    if limit is not None and not (limit.is_finite() and 1 < limit <= 10):
        raise SettingsError(f"--limit {limit} is no ratio", "Give a number such as 1.15.")
    subject = subjects.alone(request)
    original = subjects.unquantized(reference) if reference else _reference(request, subject)
    return DiagnosisReport(
        gate_version=__version__,
        checkpoint=subject.checkpoint.source,
        revision=subject.checkpoint.revision,
        command=request.command,
        lint=subject.lint,
        diagnosis=_diagnosis(request, subject, original, windows, limit),
        date=now(),
    )


def explained(report: Report, request: Request, subject: Subject) -> Report:
    """A report with the diagnosis of what failed, where the settings ask for it.

    The verdict stays, whatever comes of it: why there is no diagnosis becomes a concern.
    """
    if not _hurts(report) or request.settings.on_fail != "diagnose":
        return report
    try:
        original = _reference(request, subject)
        found = _diagnosis(request, subject, original, None, None)
    except GateError as error:
        return _undiagnosed(report, error.message, error.hint)
    except Exception as error:  # a verdict has been reached: an accident here must not take it
        said = f"{type(error).__name__}: {error}"
        return _undiagnosed(report, said, f"See where it happens: {_command(request)}")
    return report.model_copy(update={"diagnosis": found})


def offered(report: Report, request: Request, subject: Subject) -> Report:
    """A report whose fix names the command that finds where it hurts, where that can be run."""
    if not _hurts(report) or request.settings.on_fail == "diagnose" or subject.reference is None:
        return report
    fix = f"{report.verdict.fix or ''} See where it hurts: {_command(request)}".strip()
    return report.model_copy(update={"verdict": report.verdict.model_copy(update={"fix": fix})})


def _hurts(report: Report) -> bool:
    """Whether a quantized candidate was measured and failed, and not for its speed alone."""
    decided = report.verdict
    if decided.outcome != "fail" or decided.stage == "lint" or report.lint.format is None:
        return False
    failed = {found.task for found in decided.comparisons if found.outcome == "fail"}
    return failed != {verdict.SPEED}


def _undiagnosed(report: Report, why: str, fix: str) -> Report:
    concern = Concern(kind="not-diagnosed", message=f"It could not be diagnosed: {why}", fix=fix)
    concerns = (*report.verdict.concerns, concern)
    decided = report.verdict.model_copy(update={"concerns": concerns})
    return report.model_copy(update={"verdict": decided})


def _command(request: Request) -> str:
    words = ["gate", "diagnose", request.checkpoint]
    if request.settings_file is not None:
        words += ["--settings", str(request.settings_file)]
    return shlex.join(words)


def _reference(request: Request, subject: Subject) -> Checkpoint:
    """The one that the settings name for the checkpoint.

    Raises:
        SettingsError: They name none, or a directory that is not there.
        BackendUnavailableError: It lies on the hub, which cannot be reached.
    """
    if subject.reference is not None:
        return subject.reference
    if subject.rule.reference is None:
        raise SettingsError(
            f"the settings name no reference for {subject.checkpoint.source}",
            f"Name the unquantized checkpoint: {_command(request)} --reference ORIGINAL",
        )
    name = subject.rule.reference
    return subjects.unquantized(name if hub.is_repository(name) else str(request.tree / name))


def _diagnosis(
    request: Request,
    subject: Subject,
    original: Checkpoint,
    windows: int | None,
    limit: Decimal | None,
) -> Diagnosis:
    metric = _metric(request, subject)
    limit = _limit(metric, subject) if limit is None else limit
    most = None if limit is None else float(limit)
    try:
        require_decodable(subject.checkpoint, subject.form)
        found = diagnosis.diagnose(
            subject.checkpoint,
            subject.form,
            original,
            request.settings,
            metric.perplexity,
            drift.read_text(metric.perplexity, request.root),
            windows=windows or diagnosis.WINDOWS,
            limit=most,
            progress=request.progress,
        )
    except (CheckpointError, NonFiniteLogitsError, ValueError, KeyError, AssertionError) as error:
        if not subject.lint.errors:
            raise
        first = subject.lint.errors[0]
        raise CheckpointError(
            f"{subject.checkpoint.source} is broken and was not diagnosed: {first.message}",
            f"See all {len(subject.lint.errors)} errors: gate lint {subject.checkpoint.source}",
        ) from error
    exclusion = found.exclusion
    if exclusion is not None:
        patterns = tuple(_patterns(exclusion, subject))
        exclusion = exclusion.model_copy(update={"patterns": patterns})
    return found.model_copy(update={"exclusion": exclusion, "limit": most})


def _metric(request: Request, subject: Subject) -> PerplexityMetric:
    """The first perplexity of the settings: one that decides, where one does.

    Raises:
        SettingsError: They have none.
    """
    context = architecture(subject.checkpoint).context
    metrics, _ = drift.fitting(request.settings.perplexity_metrics, context)
    if not metrics:
        raise SettingsError(
            "a diagnosis reads a text, and the settings have no perplexity",
            "Add one to quant-gate.yaml: - perplexity: {file: text.txt}",
        )
    return metrics[0]


def _limit(metric: PerplexityMetric, subject: Subject) -> Decimal | None:
    """What a proposed set must meet; None to propose none."""
    try:
        return verdict.ratio_limit(metric, subject.weight_bits)
    except SettingsError:  # for so few bits no limit is usual
        return None


def _patterns(exclusion: Exclusion, subject: Subject) -> Iterator[str]:
    """What an export must leave unquantized: these modules, and those that are so already.

    One pattern stands for modules that differ in the last digit of their layer.
    """
    quantized = {layer.name for layer in walk(subject.checkpoint, subject.form) if layer.packed}
    wanted = {*_unquantized(subject.checkpoint, quantized), *exclusion.modules}
    digits: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name in wanted:
        before, digit, after = _split(name)
        digits[before, after].add(digit)
    for (before, after), found in sorted(digits.items()):
        listed = "".join(sorted(found))
        some = f"[{listed}]" if len(listed) > 1 else listed
        yield f"{glob.escape(before)}{some}{glob.escape(after)}"


def _split(name: str) -> tuple[str, str, str]:
    """A name around the last digit of its layer; without one, all of it stands before."""
    found = LAYER.search(f"{name}.")
    if found is None:
        return name, "", ""
    place = found.end(1) - 1
    return name[:place], name[place], name[place + 1 :]


def _unquantized(checkpoint: Checkpoint, quantized: Iterable[str]) -> Iterator[str]:
    """Linear layers of decoder layers that are stored as they were; recipes leave out the rest."""
    known = set(quantized)
    for name, info in checkpoint.tensors.items():
        module, _, leaf = name.rpartition(".")
        linear = leaf == "weight" and len(info.shape) == 2 and info.dtype in FLOAT_DTYPES
        if linear and module not in known and layer_index(name) is not None:
            yield from () if NOT_QUANTIZED.search(module) else (module,)
