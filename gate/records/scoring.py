"""How tasks were asked, what the model answered and what it earned."""

import math
from typing import Any, Literal

from pydantic import Field

from gate.records.storing import Record


class Part(Record):
    """One of the things that a document asks for, for example an instruction of IFEval.

    Attributes:
        kind: What the document calls it, such as `punctuation:no_comma`.
    """

    kind: str
    score: float


class SampleScore(Record):
    """One document's result (names after lm-eval).

    Attributes:
        score: Points reached, 0..weight for accuracy-like metrics.
        weight: Points that can be reached: 1, or the number of instructions of the prompt.
    """

    doc_id: int
    doc_hash: str
    prompt_hash: str
    score: float
    weight: float = 1.0


class Answer(Record):
    """What the model wrote for one document.

    Attributes:
        tokens: Generated tokens, the end token not counted.
        finish: `stop` at an end token or stop string, `length` at the limit.
        text: As it was scored: without think blocks where the task strips them.
        thinking: Whether a think block with which it began was closed; None without one, and in
            results of versions that did not look.
    """

    doc_id: int
    text: str
    tokens: int
    finish: Literal["stop", "length"]
    thinking: Literal["closed", "unclosed"] | None = None


class Points(Record):
    """What one document earned in one metric under one answer filter.

    Attributes:
        parts: What the score is the sum of, where the document names it.
    """

    metric: str
    filter: str
    score: float
    weight: float = 1.0
    parts: tuple[Part, ...] = ()


class ScoredDocument(Record):
    """One document, run and scored: what the journal keeps.

    Attributes:
        lost: Where and why it could not be scored; its points are then the worst.
    """

    doc_id: int
    doc_hash: str
    prompt_hash: str
    points: tuple[Points, ...]
    answer: Answer | None = None
    lost: str | None = None


class TaskSetup(Record):
    """How a task was asked: two results compare only where this is equal.

    Attributes:
        task_hash: lm-eval's: SHA-256 over all documents', prompts' and targets' hashes.
        documents: SHA-256 of the local documents file; None for the task's own data set.
        generation_kwargs: As handed to the model, stop strings and token limit included.
        add_bos: Whether the tokenizer put a BOS before the prompt; None if it has none.
        think: What is done with think blocks; None where nothing is generated, and in results of
            versions that scored them as they were.
    """

    task: str
    version: str
    task_hash: str
    n_documents: int
    output_type: str
    num_fewshot: int
    apply_chat_template: bool
    fewshot_as_multiturn: bool = False
    chat_template_kwargs: dict[str, Any] = Field(default={})
    system_instruction: str | None = None
    generation_kwargs: dict[str, Any] = Field(default={})
    add_bos: bool | None = None
    documents: str | None = None
    think: Literal["strip", "refuse", "keep"] | None = None


class EarlyStop(Record):
    """Why a task ended before its last document.

    Attributes:
        n_planned: Documents of the whole task.
        outcome: What all of them would give; None where only the time was up.
        certain: Whether nothing could change that; else it is settled with 99 %.
        seconds_saved: What the other documents would have taken at the rate of these; None where
            that was not measured.
    """

    reason: str
    n_planned: int
    outcome: Literal["pass", "fail"] | None
    certain: bool
    seconds_saved: float | None = None


class TaskResult(Record):
    """One metric of one task, with every document's score, in document order.

    Attributes:
        parts: What each sample's score is the sum of; empty where documents do not name it.
    """

    task: str
    metric: str
    filter: str
    higher_is_better: bool
    samples: tuple[SampleScore, ...]
    parts: tuple[tuple[Part, ...], ...] = ()
    early_stop: EarlyStop | None = None

    @property
    def label(self) -> str:
        """The metric as lm-eval names it: with its filter, where that is not the only one."""
        return self.metric if self.filter == "none" else f"{self.metric},{self.filter}"

    def beside(self, other: "TaskResult") -> "TaskResult":
        """The result on the documents that another was asked: all, unless that was stopped."""
        if other.early_stop is None:
            return self
        seen = {sample.doc_id for sample in other.samples}
        kept = [i for i, sample in enumerate(self.samples) if sample.doc_id in seen]
        return self.model_copy(
            update={
                "samples": tuple(self.samples[i] for i in kept),
                "parts": tuple(self.parts[i] for i in kept) if self.parts else (),
            }
        )

    @property
    def parts_by_id(self) -> dict[int, tuple[Part, ...]]:
        """Document id to the parts of its score."""
        pairs = zip(self.samples, self.parts, strict=False)
        return {sample.doc_id: parts for sample, parts in pairs}

    @property
    def value(self) -> float:
        """Points reached over points that can be reached; NaN without samples."""
        total = math.fsum(sample.weight for sample in self.samples)
        return math.fsum(sample.score for sample in self.samples) / total if total else math.nan

    @property
    def stderr(self) -> float:
        """Standard error of `value`, the document as the cluster; NaN below two documents.

        Source: ratio estimator, arXiv 2411.00640 section 2.2.
        """
        n = len(self.samples)
        total = math.fsum(sample.weight for sample in self.samples)
        if n < 2 or not total:
            return math.nan
        value = self.value
        squares = math.fsum((s.score - value * s.weight) ** 2 for s in self.samples)
        return math.sqrt(squares * n / (n - 1)) / total
