"""Run a model over tasks and texts: the contract `Backend` and its driver."""

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from gate.records import RoundingFloor, ScoredDocument, TaskSetup

if TYPE_CHECKING:
    import numpy as np


class Backend(Protocol):
    """Runs one checkpoint. A context manager: entering loads the model.

    Attributes:
        device: Where it runs, for example `cpu` or `NVIDIA H100 80GB HBM3`.
        dtype: Of the computation.
        kernel: How quantized layers are computed, in words.
        versions: Packages that the result depends on.
    """

    device: str
    dtype: str
    kernel: str
    versions: dict[str, str]

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def setups(self) -> tuple[TaskSetup, ...]:
        """How each task is asked; available before entering."""
        ...

    def doc_ids(self, task: str) -> Sequence[int]:
        """Every document of a task; available before entering."""
        ...

    def prompt(self, task: str, doc_id: int) -> str:
        """The text that the model is given; available before entering."""
        ...

    def score(self, task: str, doc_ids: Sequence[int]) -> list[ScoredDocument]:
        """Run these documents together, as one batch, and score them.

        Raises:
            OutOfMemoryError: They do not fit together.
            NonFiniteLogitsError: The model computed NaN or infinity.
        """
        ...

    def token_ids(self, text: str) -> "np.ndarray":
        """The text's tokens without special ones: int64, shape (tokens,); before entering."""
        ...

    def logprobs(self, token_ids: "np.ndarray") -> "np.ndarray":
        """Log-probability in nats of every token but the first, given those before it.

        Args:
            token_ids: int64, shape (windows, window).

        Returns:
            float32, shape (windows, window - 1).

        Raises:
            OutOfMemoryError, NonFiniteLogitsError: As `score`.
        """
        ...

    def rounding_floor(self, token_ids: "np.ndarray") -> RoundingFloor | None:
        """What another rounding order of the activations does; None if none are quantized."""
        ...
