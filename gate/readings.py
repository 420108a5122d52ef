"""What one run reads before it writes: its texts, and the baseline's own answers."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from gate import drift, verdict
from gate.architecture import architecture
from gate.batching import order
from gate.checkpoint import Checkpoint
from gate.evaluate import Backend, suite_digest
from gate.records import Answer, EvalResult, TaskSetup
from gate.screen import Knowledge, Screen, known_to
from gate.settings import PerplexityMetric, Settings


class Readings:
    """The texts that a model can be asked for, and the distributions they are compared with.

    Args:
        settings: With the perplexities.
        checkpoint: Whose context decides how long windows may be.
        root: Directory to which the settings' paths are relative.
        stored: The answers of backend `replay`, in place of a model.

    Attributes:
        metrics: The perplexities that are measured, gating ones first.
        known: The baseline's distributions.
        unread: What is not measured, and why: a sentence each.
    """

    def __init__(
        self, settings: Settings, checkpoint: Checkpoint, root: Path, stored: EvalResult | None
    ) -> None:
        self.settings, self.stored = settings, stored
        self.known: Knowledge = {}
        self.contents: dict[str, str] = {}
        self.metrics: tuple[PerplexityMetric, ...]
        if stored is not None:
            self.unread = list(stored.unread)
            self.metrics = tuple(
                metric
                for metric in settings.perplexity_metrics
                if not metric.advisory or stored.perplexity(metric.perplexity.label)
            )
            return
        context = architecture(checkpoint).context
        self.metrics, unread = drift.fitting(settings.perplexity_metrics, context)
        self.unread = list(unread)
        self.contents = drift.read_texts(self.metrics, root)

    def digests(self, backend: Backend) -> dict[str, str]:
        """Label to the digest of each text's tokens."""
        if self.stored is not None:
            return {text.name: text.tokens_digest for text in self.stored.perplexities}
        texts = (metric.perplexity for metric in self.metrics)
        return {
            text.label: drift.tokens_digest(
                drift.text_windows(backend, text, self.contents[text.label])
            )
            for text in texts
        }

    @property
    def optional(self) -> frozenset[str]:
        """Labels of the texts without a limit."""
        return frozenset(m.perplexity.label for m in self.metrics if m.advisory)

    def compare_with(self, baseline: EvalResult, directory: Path) -> None:
        """Take the distributions of a baseline, and leave out what it lacks, before loading.

        Args:
            directory: In which the baseline lies.

        Raises:
            BaselineError: They have a limit, and are missing or damaged.
        """
        lacking = {name for name in self.optional if baseline.perplexity(name) is None}
        self.metrics = tuple(m for m in self.metrics if m.perplexity.label not in lacking)
        self.unread += [
            f"perplexity on {name}: the baseline has none; gate eval measures it"
            for name in sorted(lacking)
        ]
        why = ""
        if self.stored is None and self.settings.top_tokens:
            self.known, why = known_to(baseline, directory)
        verdict.require_distributions(self.settings, baseline, why)
        if why:
            self.unread.append(f"drift from the baseline: {why}")
        elif self.stored is None and self.settings.top_tokens and not baseline.distributions:
            self.unread.append(
                "drift from the baseline: it was stored without distributions; gate eval keeps "
                "them beside the result"
            )

    def read(self, screen: Screen, baseline: EvalResult | None, weight_bits: int | None) -> None:
        """Every text, gating ones first, until one condemns the candidate; the rounding floor.

        Args:
            baseline: By which a text may end early; None for all of every text.
        """
        if self.stored is not None:
            screen.drifts += self.stored.drifts
            screen.rounding_floor = self.stored.rounding_floor
        for metric in self.metrics:
            text = metric.perplexity
            rule = (
                verdict.condemned(self.settings, metric, baseline, weight_bits)
                if baseline is not None
                else None
            )
            found = screen.read_text(text, self.contents.get(text.label, ""), rule)
            if found is not None and found.early_stop is not None:
                return
        if self.metrics and self.stored is None:
            first = self.metrics[0].perplexity
            screen.measure_rounding_floor(first, self.contents[first.label])

    def read_answers(self, screen: Screen) -> None:
        """The baseline's own answers, as far as it has distributions of them."""
        tasks = {metric.task for metric in self.settings.task_metrics}
        for source, name in self.known:
            if source == "answers" and name in tasks:
                screen.read_answers(name)

    def keep_answers(
        self, screen: Screen, backend: Backend, answers: Mapping[str, Sequence[Answer]]
    ) -> None:
        """Distributions over the model's own answers to a few documents of each generation task.

        Args:
            answers: Task to what was answered.
        """
        if self.stored is not None:  # there is no model that could read them
            return
        suite = suite_digest(backend.setups())
        for setup in backend.setups():
            by_id = {answer.doc_id: answer for answer in answers.get(setup.task, ())}
            if screen.directory is None or not by_id:
                continue
            # The same documents for every candidate: drawn by the suite alone.
            drawn = order(backend.doc_ids(setup.task), suite, setup.task)
            chosen = [i for i in drawn[: drift.answers.DOCUMENTS] if i in by_id]
            tokens = partial(_tokens, backend, setup)
            sequences = drift.answers.sequences(tokens(by_id[doc_id]) for doc_id in chosen)
            screen.read_answers(setup.task, sequences)


def _tokens(backend: Backend, setup: TaskSetup, answer: Answer) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of a prompt, as the task asks it, and of the answer to it."""
    prompt = backend.token_ids(backend.prompt(setup.task, answer.doc_id) or "")
    if setup.add_bos and backend.bos is not None:
        prompt = np.insert(prompt, 0, backend.bos)
    return prompt, backend.token_ids(answer.text)
