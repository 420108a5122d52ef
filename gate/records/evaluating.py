"""One evaluation of one checkpoint. A baseline is an `EvalResult` that was kept."""

from typing import Literal

from pydantic import Field

from gate.records.reading import PerplexityResult, RoundingFloor
from gate.records.scoring import Answer, TaskResult, TaskSetup
from gate.records.storing import SCHEMA_VERSION, Record
from gate.records.weighing import Size


class EvalResult(Record):
    """One evaluation of one checkpoint. A baseline is an EvalResult that was kept.

    Attributes:
        model: What the user named: a path or `org/name`.
        weights_digest: SHA-256 over the weight files, see `baseline.weights_digest`.
        config_digest: SHA-256 over config.json without its quantization.
        tokenizer_digest: SHA-256 over the tokenizer's files.
        chat_template_sha: SHA-256 of the template that was used.
        weight_bits: The lowest declared width of a weight; 16 for an unquantized checkpoint.
        kernel: How quantized layers were computed, in words.
        batch_size: Documents that were generated together.
        seed: Of the order of documents.
        duration_s: Wall-clock, model loading included.
    """

    schema_version: int = SCHEMA_VERSION
    gate_version: str
    model: str
    revision: str | None
    weights_digest: str
    config_digest: str
    tokenizer_digest: str
    chat_template_sha: str | None
    format: str | None
    weight_bits: int | None = None
    backend: str
    device: str
    dtype: str
    kernel: str
    activations: Literal["emulate", "off"]
    setups: tuple[TaskSetup, ...]
    tasks: tuple[TaskResult, ...]
    answers: dict[str, tuple[Answer, ...]] = Field(default={})
    perplexities: tuple[PerplexityResult, ...] = ()
    rounding_floor: RoundingFloor | None = None
    size: Size
    seed: str
    batch_size: int
    versions: dict[str, str]
    date: str
    duration_s: float

    def task(self, task: str, metric: str, filter: str | None = None) -> TaskResult | None:
        """The stored result of one metric."""
        for result in self.tasks:
            if (result.task, result.metric) == (task, metric) and filter in {None, result.filter}:
                return result
        return None

    def setup(self, task: str) -> TaskSetup | None:
        """How one task was asked."""
        return next((setup for setup in self.setups if setup.task == task), None)

    def perplexity(self, name: str) -> PerplexityResult | None:
        """The stored perplexity of that name."""
        return next((found for found in self.perplexities if found.name == name), None)
