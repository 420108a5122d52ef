"""How far a model that is run again differs from itself."""

from gate.records.storing import Record


class Rerun(Record):
    """What became of one metric when the same model was asked again in other batches.

    Attributes:
        task, metric, filter: As in `TaskResult`; of a perplexity `perplexity`, the text and `none`.
        runs: How many were made, the first included.
        n: Documents or windows, counted once for every run after the first.
        flips: Share of them, 0..1, that scored other than in the first run.
        mean_square: Mean squared difference of their scores from the first run's: in squared
            points, and of a perplexity in squared nats per token.
    """

    task: str
    metric: str
    filter: str
    runs: int
    n: int
    flips: float
    mean_square: float
