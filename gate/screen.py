"""Everything that is measured by reading alone, before a model writes a word."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gate import drift
from gate.batching import order, share
from gate.errors import BaselineError
from gate.evaluate import Backend, Progress
from gate.journal import Journal
from gate.records import (
    Distributions,
    Drift,
    EarlyStop,
    EvalResult,
    PerplexityResult,
    RoundingFloor,
    Shard,
    Source,
)
from gate.settings import PerplexityText

WINDOWS = 16
"""Windows after which a text is looked at for the first time.

Source: docs/statistics.md; they tell a ratio to within 1 to 4 %.
"""

FLOOR_WINDOWS = 2
"""Windows on which the rounding floor is measured."""

Condemned = Callable[[PerplexityResult, int], EarlyStop | None]
"""Given a perplexity of some windows and how many the text has: why no more are needed."""


class Known(NamedTuple):
    """The baseline's distributions: what is stored of them, and themselves."""

    record: Distributions
    top: drift.TopTokens


Knowledge = Mapping[tuple[Source, str], Known]
"""By what was read, and the name of the text or task."""


class Screen:
    """What one model gives to read texts and answers; every finished one is journalled.

    Args:
        backend: Entered already.
        seed: Of the order in which windows are read.
        journal: Entered already.
        progress: How to show progress.
        known: The baseline's distributions, where there are any.
        directory: Where distributions are stored beside the result; None to keep none.
        top: Most likely tokens that are kept of each.
        shard: Whose batches of windows are read; None for all.
    """

    def __init__(
        self,
        backend: Backend,
        seed: str,
        journal: Journal,
        progress: Progress,
        *,
        known: Knowledge,
        directory: Path | None,
        top: int,
        shard: Shard | None = None,
    ) -> None:
        self.backend, self.seed = backend, seed
        self.journal, self.progress = journal, progress
        self.known, self.shard = known, shard
        self.directory = directory if top else None
        self.top = top if directory else 0
        self.perplexities: list[PerplexityResult] = []
        self.distributions: list[Distributions] = []
        self.drifts: list[Drift] = []
        self.rounding_floor: RoundingFloor | None = None

    def read_text(
        self, text: PerplexityText, content: str, condemned: Condemned | None = None
    ) -> PerplexityResult | None:
        """Perplexity of one text and how far its distributions have moved.

        Args:
            condemned: Asked after the first windows whether the rest is needed.

        Returns:
            None where the shard has no window of it.

        Raises:
            NonFiniteLogitsError: The model computed NaN or infinity.
        """
        known = self.known.get(("text", text.label))
        result = self._journalled(text, condemned)
        if result is None or not self._resumed("text", text.label, known):
            windows = drift.text_windows(self.backend, text, content)
            committed = order(range(len(windows)), self.seed, text.label)
            ids = share(committed, drift.together(text.window), self.shard)
            if not ids:
                return None
            result = self._read_windows(text, content, windows, ids, known, condemned)
            self.journal.add_perplexity(result)
        self.perplexities.append(result)
        return result

    def _journalled(
        self, text: PerplexityText, condemned: Condemned | None
    ) -> PerplexityResult | None:
        """What an earlier run read; where it stopped early, only if this one would stop there."""
        result = self.journal.perplexities.get(text.label)
        if result is None or result.early_stop is None or self.journal.path is None:
            return result
        stops = condemned is not None and condemned(result, result.early_stop.n_planned)
        return result if stops else None

    def _read_windows(
        self,
        text: PerplexityText,
        content: str,
        windows: np.ndarray,
        ids: Sequence[int],
        known: Known | None,
        condemned: Condemned | None,
    ) -> PerplexityResult:
        """In committed random order: the first sixteen tell of all."""
        n, label = len(ids), text.label
        looks = [WINDOWS, n] if condemned is not None and n > WINDOWS else [n]
        parts: list[drift.Reading] = []
        done = 0
        with self.progress(f"perplexity of {label}", n) as advance:
            for look in looks:
                parts.append(self._read(windows, ids[done:look], known, advance))
                done = look
                reading, read = drift.Reading.joined(parts), ids[:look]
                result = drift.perplexity(text, content, windows, reading.logprobs, read)
                stop = condemned(result, n) if condemned is not None and look < n else None
                if stop is not None:
                    result = result.model_copy(update={"early_stop": stop})
                    break
        in_order = drift.Sequences.whole(windows[sorted(read)])
        self._moved(in_order, reading, read, "text", label, known)
        return result

    def read_answers(self, task: str, sequences: drift.Sequences | None = None) -> None:
        """The baseline's own answers to a task: its distributions, or how far they have moved.

        Args:
            sequences: Prompts with answers, where they are the model's own.
        """
        known = self.known.get(("answers", task))
        read = known.top.sequences if known is not None else sequences
        if read is None or self._resumed("answers", task, known):
            return
        ids = list(range(len(read.ids)))
        with self.progress(f"answers to {task}", len(ids)) as advance:
            reading = self._read(read.ids, ids, known, advance)
        self._moved(read, reading, ids, "answers", task, known)

    def measure_rounding_floor(self, text: PerplexityText, content: str) -> None:
        """What a last-bit change of rounding does, on the first windows of a text; once a run."""
        if self.shard is not None and not self.shard.first:
            return
        self.rounding_floor = self.journal.rounding_floor
        if self.rounding_floor is None:
            windows = drift.text_windows(self.backend, text, content)[:FLOOR_WINDOWS]
            self.rounding_floor = self.backend.rounding_floor(windows)
            if self.rounding_floor is not None:
                self.journal.add_rounding_floor(self.rounding_floor)

    def _read(
        self,
        windows: np.ndarray,
        ids: Sequence[int],
        known: Known | None,
        advance: Callable[[int], None],
    ) -> drift.Reading:
        if known is None:
            return self.backend.read(windows[ids], top=self.top, progress=advance)
        at = known.top.take(ids).at
        return self.backend.read(windows[ids], top=1, at=at, progress=advance)

    def _moved(
        self,
        sequences: drift.Sequences,
        reading: drift.Reading,
        read: Sequence[int],
        source: Source,
        name: str,
        known: Known | None,
    ) -> None:
        """Keep the distributions, or what changed since they were kept."""
        if known is not None:
            moved = drift.measure(known.record, known.top.take(read), reading)
            self.drifts.append(moved)
            self.journal.add_drift(moved)
        elif self.directory is not None:
            back = np.argsort(read)
            in_order = drift.Reading(*(part[back] for part in reading))
            top = drift.TopTokens.of(sequences, in_order)
            kept = drift.store.keep(self.directory, name, source, top)
            self.distributions.append(kept)
            self.journal.add_distributions(kept)

    def _resumed(self, source: Source, name: str, known: Known | None) -> bool:
        """Whether an earlier run got as far; what it measured is taken over."""
        if known is not None:
            drifts = [d for d in self.journal.drifts if d.distributions == known.record.digest]
            self.drifts += drifts[:1]
            return bool(drifts)
        if self.directory is None:
            return True
        for kept in self.journal.distributions:
            if (kept.source, kept.name) == (source, name):
                if not drift.store.path(self.directory, kept).is_file():
                    return False
                self.distributions.append(kept)
                return True
        return False


def known_to(stored: EvalResult, directory: Path) -> tuple[dict[tuple[Source, str], Known], str]:
    """The distributions that a baseline was stored with; why they are not used if that fails.

    Args:
        directory: In which the baseline lies.
    """
    found: dict[tuple[Source, str], Known] = {}
    for record in stored.distributions:
        try:
            found[record.source, record.name] = Known(record, drift.store.load(directory, record))
        except BaselineError as error:
            return {}, error.message
    return found, ""
