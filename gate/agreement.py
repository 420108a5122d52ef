"""Whether a runtime computes what the files say: its own layers against the decoded weights.

A runtime may read a layout otherwise than its producer wrote it, and nothing tells: the model
answers, a little worse or much worse. The decoded weights say what the files hold. Where the two
differ by more than rounding, the file or the runtime is broken.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gate import drift, placement
from gate.backends.hf import Hf
from gate.backends.native import Native
from gate.backends.replicas import Replicas
from gate.checkpoint import Checkpoint
from gate.drift import Sequences, TopTokens
from gate.emulation import Emulated
from gate.errors import GateError, NonFiniteLogitsError
from gate.evaluate import Backend
from gate.quantization import Format, require_decodable
from gate.readings import Readings
from gate.records import Agreement, Concern
from gate.settings import Settings

WINDOWS = 2
"""Windows that both read: the first of the first text."""

WINDOW = 512
"""Tokens of a window that is made of prompts, where the settings read no text; at most."""

TOP = 64
"""Most likely tokens that are compared."""

MOST_KL = 0.02
"""Nats by which sound pairs differ, at most, where only weights are quantized.

Source: docs/native.md (as of the next two), measured on SmolLM2-135M, which rounding moves far.
"""

MOST_KL_ROUNDED = 0.1
"""The same where the runtime rounds the inputs, too."""

FLOORS = 4
"""Rounding floors by which they differ, at most, where the inputs of both are rounded."""


class Decoded(NamedTuple):
    """What the decoded weights say of a few windows.

    Attributes:
        windows: int64, shape (windows, window).
        top: Their distributions; None where they are NaN or infinite.
        limit: KL divergence in nats of a sound runtime's, at most.
        kernel: How they were computed, in words.
    """

    windows: np.ndarray
    top: TopTokens | None
    limit: float
    kernel: str


def decoded(backend: Backend, readings: Readings) -> Decoded | None:
    """Read a few windows by the decoded weights, before the runtime's own model is loaded.

    None where there is nothing to decode; where it cannot be done, `readings.unread` says why.
    """
    if not isinstance(backend, Native) or backend.form is None:
        return None
    settings = backend.settings.model_copy(update={"backend": "hf", "activations": "emulate"})
    try:
        require_decodable(backend.checkpoint, backend.form)
        with _model(backend.checkpoint, backend.form, settings) as model:
            return _read(model, _windows(backend, readings))
    except GateError as error:
        readings.unread.append(f"agreement with the decoded weights: {error.message}")
        return None


def served(backend: Backend, readings: Readings) -> Agreement | None:
    """How far weights that a target's runtime quantizes again lie from the stored ones.

    The weights alone: inputs are not rounded. None where none is quantized again.

    Args:
        backend: Its model is not loaded yet.
        readings: What it reads.

    Raises:
        BackendError: One of the two cannot be loaded or read.
    """
    if isinstance(backend, Replicas):
        backend = backend.alone
    form = backend.form if isinstance(backend, Hf) else None
    if not isinstance(backend, Hf) or not isinstance(form, Emulated) or not form.requantized:
        return None
    settings = backend.settings.model_copy(update={"activations": "off"})
    with _model(backend.checkpoint, form.stored, settings) as model:
        known = _read(model, _windows(backend, readings))
    with _model(backend.checkpoint, form, settings) as model:
        return measure(model, known)


def measure(backend: Backend, known: Decoded | None) -> Agreement | None:
    """How far the runtime's model lies from the decoded weights; None where these are not known.

    Raises:
        NonFiniteLogitsError: The runtime's model computed NaN or infinity.
    """
    if known is None:
        return None
    at = None if known.top is None else known.top.at
    reading = backend.read(known.windows, top=1, at=at)
    tokens = reading.logprobs.size
    kl = same_top = None
    if known.top is not None:
        mask = known.top.sequences.mask
        kl = float(drift.kl_divergence(known.top, reading.at_logprobs[mask]).mean())
        same_top = float((known.top.ids[:, 0] == reading.top_ids[mask][:, 0]).mean())
    return Agreement(
        kl=kl, same_top=same_top, limit=known.limit, tokens=tokens, reference=known.kernel
    )


def concerns(found: Agreement | None, kernel: str) -> Iterator[Concern]:
    """That the runtime and the file contradict each other.

    Args:
        kernel: How the runtime computes, in words.
    """
    if found is None or (found.kl is not None and found.kl <= found.limit):
        return
    if found.kl is None or found.same_top is None:
        said = "the decoded weights compute NaN or infinity, the runtime does not"
    else:
        said = (
            f"the runtime differs from the decoded weights by KL {found.kl:.2g} nats, beyond the "
            f"{found.limit:.2g} of sound ones, and has the same top token in "
            f"{100 * found.same_top:.1f} % of {found.tokens:,}"
        )
    yield Concern(
        kind="runtime-disagrees",
        message=f"{said}: either the file or the runtime is broken ({kernel})",
        fix="Judge the file by itself with backend: hf, and try another version of the library.",
    )


def _limit(model: Hf, windows: np.ndarray) -> float:
    """KL divergence in nats of a sound runtime from the decoded weights, at most."""
    floor = model.rounding_floor(windows)
    if floor is not None:
        return max(MOST_KL_ROUNDED, FLOORS * floor.kl)
    assert model.form is not None, "what is decoded has a format"
    # LLM.int8() keeps outliers of its inputs, which cannot be told before it runs.
    rounds = model.form.name == "bitsandbytes" and "INT8" in model.form.algorithms(model.checkpoint)
    return MOST_KL_ROUNDED if rounds else MOST_KL


def _model(checkpoint: Checkpoint, form: Format, settings: Settings) -> Hf:
    """The decoded weights, in as much memory as they need."""
    streamed = placement.place(settings, checkpoint, form).streamed
    return Hf(checkpoint, form, None, settings, streamed=streamed)


def _read(model: Hf, windows: np.ndarray) -> Decoded:
    try:
        reading = model.read(windows, top=TOP)
    except NonFiniteLogitsError:
        return Decoded(windows, None, MOST_KL, model.kernel)
    top = TopTokens.of(Sequences.whole(windows), reading)
    return Decoded(windows, top, _limit(model, windows), model.kernel)


def _windows(backend: Hf, readings: Readings) -> np.ndarray:
    """The first windows of the first text; without one, of the tasks' prompts."""
    for metric in readings.metrics:
        text = metric.perplexity
        return drift.text_windows(backend, text, readings.contents[text.label])[:WINDOWS]
    parts: list[np.ndarray] = []
    for setup in backend.setups():
        for doc_id in backend.doc_ids(setup.task):
            parts.append(backend.token_ids(backend.prompt(setup.task, doc_id)))
            if sum(map(len, parts)) >= WINDOWS * WINDOW:
                break
    joined = np.concatenate(parts)
    width = min(WINDOW, len(joined) // WINDOWS)
    return drift.windows(joined, width, WINDOWS, backend.bos)
