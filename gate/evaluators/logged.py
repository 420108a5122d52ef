"""What another evaluator logged, in our own terms: the value that every reader gives back."""

from typing import NamedTuple

from gate.records import TaskResult, TaskSetup


class Logged(NamedTuple):
    """One evaluation by somebody else.

    Attributes:
        model: What that evaluator was told.
        kernel: Who ran the model, in words.
        template_sha: SHA-256 of the chat template that was used; None without one.
        date: ISO 8601.
        left_out: What was measured and cannot be compared document by document, and why.
    """

    model: str
    setups: tuple[TaskSetup, ...]
    tasks: tuple[TaskResult, ...]
    kernel: str
    device: str
    dtype: str
    template_sha: str | None
    batch_size: int
    versions: dict[str, str]
    date: str
    duration_s: float
    left_out: tuple[str, ...] = ()
