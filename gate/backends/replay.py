"""Stored answers instead of a model: judges a result that was measured elsewhere."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self

from gate.drift import Reading
from gate.errors import BackendError, BackendUnavailableError, BaselineMismatchError
from gate.records import (
    EvalResult,
    Points,
    RoundingFloor,
    ScoredDocument,
    TaskSetup,
)
from gate.speed import Clock, Generated, Workload

if TYPE_CHECKING:
    import numpy as np


class Replay:
    """Gives back the scores of a stored result.

    Args:
        stored: The result.
        weights_digest: Of the checkpoint that is judged; a result of other bytes is refused.
    """

    bos: int | None = None

    def __init__(self, stored: EvalResult, weights_digest: str) -> None:
        if stored.weights_digest != weights_digest:
            raise BaselineMismatchError(
                f"the stored answers belong to {stored.model} with weights "
                f"{stored.weights_digest[:12]}, not to {weights_digest[:12]}",
                "Measure this checkpoint: gate eval CHECKPOINT -o answers.json",
            )
        self.stored = stored
        self.device = stored.device
        self.dtype = stored.dtype
        self.kernel = stored.kernel
        self.served = stored.served
        self.emulated = stored.throughput is not None and stored.throughput.emulated
        self.versions = dict(stored.versions)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def setups(self) -> tuple[TaskSetup, ...]:
        """As stored."""
        return self.stored.setups

    def doc_ids(self, task: str) -> Sequence[int]:
        """The documents that were scored."""
        first = next(result for result in self.stored.tasks if result.task == task)
        return [sample.doc_id for sample in first.samples]

    def prompt(self, task: str, doc_id: int) -> str | None:
        """Not stored."""
        return None

    def higher_is_better(self, task: str, metric: str) -> bool:
        """As stored."""
        found = self.stored.task(task, metric)
        return found is None or found.higher_is_better

    def fitting(self) -> int:
        """As many as were asked together."""
        return self.stored.batch_size

    def score(self, task: str, doc_ids: Sequence[int]) -> list[ScoredDocument]:
        """The stored scores of these documents."""
        results = [result for result in self.stored.tasks if result.task == task]
        answers = {answer.doc_id: answer for answer in self.stored.answers.get(task, ())}
        stats = (found for found in self.stored.answer_stats if found.task == task)
        lost = {sample.doc_id: sample.where for found in stats for sample in found.lost}
        samples = [{sample.doc_id: sample for sample in result.samples} for result in results]
        parts = [result.parts_by_id for result in results]
        return [
            ScoredDocument(
                doc_id=doc_id,
                doc_hash=samples[0][doc_id].doc_hash,
                prompt_hash=samples[0][doc_id].prompt_hash,
                points=tuple(
                    Points(
                        metric=result.metric,
                        filter=result.filter,
                        score=found[doc_id].score,
                        weight=found[doc_id].weight,
                        parts=named.get(doc_id, ()),
                    )
                    for result, found, named in zip(results, samples, parts, strict=True)
                ),
                answer=answers.get(doc_id),
                lost=lost.get(doc_id),
            )
            for doc_id in doc_ids
        ]

    def token_ids(self, text: str) -> "np.ndarray":
        """Not stored."""
        raise self._nothing_to_read()

    def read(
        self,
        windows: "np.ndarray",
        *,
        top: int = 0,
        at: "np.ndarray | None" = None,
        progress: Callable[[int], None] | None = None,
    ) -> Reading:
        """Not stored."""
        raise self._nothing_to_read()

    def _nothing_to_read(self) -> BackendError:
        return BackendError(
            "the stored answers hold no perplexity of this text",
            "Measure again: gate eval CHECKPOINT -o answers.json",
        )

    def generate(self, workload: Workload, clock: Clock) -> Generated:
        """Stored answers take no time."""
        raise BackendUnavailableError(
            "the stored answers hold no speed of this work",
            "Measure again with speed in quant-gate.yaml: gate eval CHECKPOINT -o answers.json",
        )

    def rounding_floor(self, token_ids: "np.ndarray") -> RoundingFloor | None:
        """As stored."""
        return self.stored.rounding_floor
