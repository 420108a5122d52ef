"""One evaluation of one checkpoint. A baseline is an `EvalResult` that was kept."""

from typing import Literal

from pydantic import Field

from gate.records.answering import AnswerStats, Prompting
from gate.records.drifting import Distributions, Drift, Source
from gate.records.reading import Agreement, PerplexityResult, RoundingFloor, Targeted
from gate.records.repeating import Rerun
from gate.records.scoring import Answer, TaskResult, TaskSetup
from gate.records.serving import Engine, Served
from gate.records.sharding import Shard
from gate.records.speeding import Throughput
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
        runtime_quantization: How the runtime quantized the weights while it loaded them, in words;
            None where they were taken as they are stored.
        agreement: Whether the runtime computes what the files say, where that can be told.
        target: Where it is meant to be served, and what is computed otherwise there.
        served: Who answered, where the weights were not loaded here.
        engine: What ran the model here, where transformers did not.
        chosen: Why this backend ran it, where the settings leave that open.
        distributions: What a later candidate's distributions are compared with.
        drifts: How far the distributions lie from those of the baseline.
        unread: What was to be read and was not, and why: a sentence each.
        answer_stats: The answers to each task, counted.
        prompting: How prompts begin and answers end; None where nothing is asked.
        batch_size: Documents that were generated together.
        batch_plan: How they were put together, in words.
        seed: Of the order of documents.
        reruns: How far the same model, run again, differed from what is stored here.
        throughput: Speed and memory, where the settings ask for them.
        shard: Which part of a run this is; None for a whole one.
        shards: From how many parts it was merged; 1 where it was measured as a whole.
        replicas: How many processes shared the documents.
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
    runtime_quantization: str | None = None
    agreement: Agreement | None = None
    target: Targeted | None = None
    served: Served | None = None
    engine: Engine | None = None
    chosen: str | None = None
    activations: Literal["emulate", "off"]
    setups: tuple[TaskSetup, ...]
    tasks: tuple[TaskResult, ...]
    answers: dict[str, tuple[Answer, ...]] = Field(default={})
    answer_stats: tuple[AnswerStats, ...] = ()
    prompting: Prompting | None = None
    perplexities: tuple[PerplexityResult, ...] = ()
    rounding_floor: RoundingFloor | None = None
    distributions: tuple[Distributions, ...] = ()
    drifts: tuple[Drift, ...] = ()
    unread: tuple[str, ...] = ()
    reruns: tuple[Rerun, ...] = ()
    throughput: Throughput | None = None
    shard: Shard | None = None
    shards: int = 1
    replicas: int = 1
    size: Size
    seed: str
    batch_size: int
    batch_plan: str = ""
    versions: dict[str, str]
    date: str
    duration_s: float

    def task(self, task: str, metric: str, filter: str | None = None) -> TaskResult | None:
        """The stored result of one metric."""
        for result in self.tasks:
            if (result.task, result.metric) == (task, metric) and filter in {None, result.filter}:
                return result
        return None

    def rerun(self, task: str, metric: str, filter: str) -> Rerun | None:
        """How far one metric differed when the same model was run again."""
        for found in self.reruns:
            if (found.task, found.metric, found.filter) == (task, metric, filter):
                return found
        return None

    def setup(self, task: str) -> TaskSetup | None:
        """How one task was asked."""
        return next((setup for setup in self.setups if setup.task == task), None)

    def distribution(self, name: str, source: Source = "text") -> Distributions | None:
        """What is stored of the distributions over that text, or over a task's answers."""
        found = (d for d in self.distributions if (d.name, d.source) == (name, source))
        return next(found, None)

    def drift(self, name: str, source: Source = "text") -> Drift | None:
        """How far the distributions over that text, or over a task's answers, have moved."""
        return next((d for d in self.drifts if (d.name, d.source) == (name, source)), None)

    def perplexity(self, name: str) -> PerplexityResult | None:
        """The stored perplexity of that name."""
        return next((found for found in self.perplexities if found.name == name), None)
