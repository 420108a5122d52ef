"""Where a checkpoint is hurt: its modules put back to the reference, one after another."""

import time
from collections.abc import Sequence

import numpy as np

from gate import drift, preflight, reference, terminal
from gate.backends.hf import Hf
from gate.backends.hf_shelf import Shelf
from gate.checkpoint import Checkpoint
from gate.diagnosis import clipping, findings
from gate.diagnosis.loading import loaded
from gate.diagnosis.passes import Passes
from gate.diagnosis.ranking import ranked
from gate.diagnosis.search import exclusion
from gate.diagnosis.suspects import groups, suspects
from gate.evaluate import Progress
from gate.quantization import Format
from gate.records import Diagnosis
from gate.settings import PerplexityText, Settings

__all__ = ["WINDOWS", "diagnose"]

WINDOWS = 8
"""Windows of the text that are read: all of it takes less than five runs over 56 windows."""


def diagnose(
    checkpoint: Checkpoint,
    form: Format | None,
    original: Checkpoint,
    settings: Settings,
    text: PerplexityText,
    content: str,
    *,
    windows: int = WINDOWS,
    limit: float | None = None,
    progress: Progress = terminal.silent,
) -> Diagnosis:
    """Find the modules that carry a checkpoint's damage, and a small set whose exclusion heals it.

    In memory are the decoded candidate and of the reference one decoder layer, or what is put back;
    hidden states, 2 bytes times layers, tokens and width, go to a temporary file.

    Args:
        checkpoint, form: The candidate, local, and its format; None where it is not quantized.
        original: The unquantized checkpoint that it was made from, local.
        settings: `activations` and `trust_remote_code` are read.
        text, content: Where the windows are taken from, and the text itself.
        windows: How many at most, spread evenly.
        limit: What the perplexity ratio should stay below; None to propose no exclusion.
        progress: Told what is done.

    Raises:
        CheckpointError: The two are not the same architecture, or a weight is missing.
        NonFiniteLogitsError: A module gives NaN or infinite values; it is named.
        BackendUnavailableError: A package or memory is missing, or layers cannot be run alone.
    """
    started = time.monotonic()
    preflight.require_packages()
    everything = drift.text_windows(Hf(checkpoint, form, None, settings), text, content)
    batches = _batches(everything, windows)
    with loaded(checkpoint, form, original, settings) as pair, Shelf() as shelf:
        compared = reference.compare(checkpoint, form, pair.packed, original)
        with clipping.watching(pair.quantizers) as ranges:
            passes = Passes(pair.layers, pair.original, batches, shelf, progress)
        found = suspects(checkpoint, pair.packed, compared, pair.layers, pair.original)
        returned = ranked(passes, found, progress)
        return Diagnosis(
            reference=original.source,
            text=text.label,
            **findings.found(passes, returned, ranges),
            limit=limit,
            exclusion=exclusion(passes, groups(found), returned, limit, len(everything), progress),
            notes=compared.skipped,
            duration_s=round(time.monotonic() - started, 1),
        )


def _batches(windows: np.ndarray, most: int) -> Sequence[np.ndarray]:
    """Windows evenly spread over a text's, as many together as are read at a time."""
    count = min(most, len(windows))
    chosen = windows[np.linspace(0, len(windows) - 1, count).round().astype(int)]
    size = drift.together(windows.shape[1])
    return [chosen[start : start + size] for start in range(0, count, size)]
