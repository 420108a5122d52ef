"""How often the gate judges the same bytes otherwise."""

from typing import Any, Literal

from gate.records.judging import Outcome
from gate.records.storing import SCHEMA_VERSION, Record


class Rate(Record):
    """A share of runs.

    Attributes:
        count, n: So many of so many.
        low, high: Exact 95 % interval of the share (Clopper and Pearson).
    """

    count: int
    n: int
    low: float
    high: float


class Spread(Record):
    """One gating metric's retention over the runs; of a perplexity, its ratio.

    Attributes:
        threshold: The limit as written in the settings.
        sd: Standard deviation over the runs; None for a single one, or where one had no number.
        low, high: Smallest and largest.
    """

    task: str
    metric: str
    threshold: str
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None


class CalibrationRun(Record):
    """One of the verdicts.

    Attributes:
        reason: The sentence that decided.
        early_outcome: What stopping early would have said; None where it is off.
        early_documents, documents: How many it would have asked, and how many there are.
        duration_s: Wall-clock, without loading.
    """

    outcome: Outcome
    reason: str
    early_outcome: Outcome | None = None
    early_documents: int | None = None
    documents: int
    duration_s: float


class Calibration(Record):
    """How often the gate judges the same bytes otherwise.

    Attributes:
        method: `rerun` runs the model again in other batches; `resample` draws other documents
            from the stored results of one run.
        checkpoint, baseline: What the user named.
        runs: Every verdict of a rerun; draws are only counted.
        outcomes: How often each was the verdict.
        verdict: The most frequent one, the worse of two that are equally frequent; of draws, the
            verdict on the documents themselves.
        differing, failing: How many verdicts are not that one, and how many are FAIL.
        early_disagreed: Runs of which stopping early would have said something else; None where
            it is off or was not looked at.
        refused: Draws whose baseline had too few points for a verdict; not counted in any rate.
        duration_s: Wall-clock, model loading included.
    """

    schema_version: int = SCHEMA_VERSION
    gate_version: str
    method: Literal["rerun", "resample"]
    checkpoint: str
    weights_digest: str
    baseline: str
    baseline_digest: str
    settings: dict[str, Any]
    runs: tuple[CalibrationRun, ...] = ()
    outcomes: dict[Outcome, int]
    verdict: Outcome
    differing: Rate
    failing: Rate
    early_disagreed: Rate | None = None
    spreads: tuple[Spread, ...] = ()
    refused: int = 0
    date: str
    duration_s: float

    @property
    def same_model(self) -> bool:
        """Whether the baseline is of the same bytes, so that every FAIL is a false alarm."""
        return self.weights_digest == self.baseline_digest
