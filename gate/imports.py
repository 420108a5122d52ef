"""Another evaluator's result becomes one of ours: `gate import`."""

from pathlib import Path
from typing import NamedTuple

from gate import baseline, subjects
from gate.errors import ImportedError
from gate.evaluators import EVALUATORS, Logged
from gate.records import EvalResult
from gate.request import Request, Subject


class Imported(NamedTuple):
    """The result, and what could not be taken over."""

    result: EvalResult
    left_out: tuple[str, ...]


def imported(request: Request, evaluator: str, path: Path) -> Imported:
    """A result as `gate eval` would have stored it, from what an evaluator logged.

    That the log is about this checkpoint cannot be seen from it, but by its chat template: who
    imports it vouches for that.

    Args:
        request: Names the checkpoint that was measured.
        evaluator: One of `EVALUATORS`.
        path: What it wrote.

    Raises:
        ImportedError: The log cannot be read, or another chat template was used.
    """
    logged = EVALUATORS[evaluator](path)
    subject = subjects.alone(request)
    template = baseline.template_sha(subject.checkpoint)
    if logged.template_sha is not None and logged.template_sha != template:
        named = subject.checkpoint.source
        raise ImportedError(
            f"{path} was measured with another chat template than that of {named}",
            "Name the checkpoint that was measured: --checkpoint",
        )
    return Imported(_result(evaluator, logged, subject), (*logged.left_out, *_unlike(logged)))


def _result(evaluator: str, logged: Logged, subject: Subject) -> EvalResult:
    """The log's figures beside the checkpoint's digests."""
    if subject.size is None:
        raise ImportedError(
            f"{subject.checkpoint.source} holds no weights",
            "Name the checkpoint that was measured.",
        )
    return EvalResult(
        **subject.identity,
        backend=evaluator,
        device=logged.device,
        dtype=logged.dtype,
        kernel=logged.kernel,
        # As its runner does, which is what emulation stands for.
        activations="emulate",
        setups=logged.setups,
        tasks=logged.tasks,
        seed=f"{evaluator} {logged.date}",
        batch_size=logged.batch_size,
        versions=logged.versions,
        date=logged.date,
        duration_s=logged.duration_s,
    )


def _unlike(logged: Logged) -> tuple[str, ...]:
    """What a log never holds."""
    generated = [s.task for s in logged.setups if s.output_type == "generate_until"]
    if not generated:
        return ()
    return (f"answers to {', '.join(generated)}: a log does not say how they ended",)
