"""Speed and memory of the loaded model: prefill, decoding, time to the first token, peak.

Every run continues random prompts of one length greedily by a fixed number of tokens, so that two
models do the same work whatever they would rather say. Figures are medians of repeats with their
range; runs of a warm-up do not count.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from gate.errors import OutOfMemoryError, SettingsError
from gate.records import BatchSpeed, Repeated, Throughput
from gate.settings import Speed

Clock = Callable[[], float]
"""Seconds since any moment, as `time.perf_counter` tells them."""


class Workload(NamedTuple):
    """What one run does: random prompts, each continued by the same number of tokens.

    Attributes:
        seed: Of the prompts; runs with other seeds share none, so that no cache answers them.
    """

    batch: int
    prompt_tokens: int
    new_tokens: int
    seed: int


class Generated(NamedTuple):
    """What one run took.

    Attributes:
        times: Clock readings in seconds, one more than new tokens: when the prompts were in place,
            then each time that a token of every sequence was computed.
        peak_bytes: Most memory in use during the run.
        peak_of: See `Throughput.peak_of`.
        device: What computed it, a CPU with its instructions and threads.
        devices: How many hold the model.
    """

    times: Sequence[float]
    peak_bytes: int
    peak_of: Literal["device", "process"]
    device: str
    devices: int


class Generator(Protocol):
    """What a backend must do to have its speed measured; see `evaluate.Backend`."""

    dtype: str
    kernel: str
    emulated: bool

    def generate(self, workload: Workload, clock: Clock) -> Generated:
        """Continue random prompts by a fixed number of tokens."""
        ...


def measure(
    generator: Generator,
    asked: Speed,
    advance: Callable[[int], None],
    clock: Clock = time.perf_counter,
) -> Throughput:
    """One sequence alone, then the batch of the settings.

    Args:
        generator: Entered already.
        advance: Told after every run, of which there are `runs(asked)`.

    Raises:
        BackendUnavailableError: The backend runs no model.
        OutOfMemoryError: The batch does not fit.
    """
    batches, kept = [], []
    for batch in _batches(asked):
        found = []
        for seed in range(asked.warmup + asked.repeats):
            work = Workload(batch, asked.prompt_tokens, asked.new_tokens, seed)
            try:
                found.append(generator.generate(work, clock))
            except OutOfMemoryError as error:
                raise OutOfMemoryError(
                    error.message, "Lower batch, prompt_tokens or new_tokens under speed."
                ) from error
            advance(1)
        counted = found[asked.warmup :]
        batches.append(_batch_speed(batch, asked.prompt_tokens, counted))
        kept += counted
    return Throughput(
        device=kept[0].device,
        devices=kept[0].devices,
        dtype=generator.dtype,
        kernel=generator.kernel,
        emulated=generator.emulated,
        prompt_tokens=asked.prompt_tokens,
        new_tokens=asked.new_tokens,
        repeats=asked.repeats,
        batches=tuple(batches),
        peak_bytes=max(run.peak_bytes for run in kept),
        peak_of=kept[0].peak_of,
        gpu_hour_price=asked.gpu_hour_price,
    )


def runs(asked: Speed) -> int:
    """How many runs there are, those of the warm-up included."""
    return len(_batches(asked)) * (asked.warmup + asked.repeats)


def answers(stored: Throughput, asked: Speed) -> bool:
    """Whether stored figures are of the work that is asked for."""
    return (
        tuple(found.batch for found in stored.batches) == _batches(asked)
        and stored.prompt_tokens == asked.prompt_tokens
        and stored.new_tokens == asked.new_tokens
    )


def require_room(asked: Speed, config: Mapping[str, Any]) -> None:
    """Refuse more tokens than the model has positions for.

    Args:
        config: The checkpoint's config.json.

    Raises:
        SettingsError: Prompt and new tokens together are more.
    """
    text = config.get("text_config")
    context = (text if isinstance(text, Mapping) else config).get("max_position_embeddings")
    needed = asked.prompt_tokens + asked.new_tokens
    if isinstance(context, int) and needed > context:
        raise SettingsError(
            f"speed: a prompt of {asked.prompt_tokens:,} and {asked.new_tokens:,} new tokens are "
            f"more than the model's context of {context:,}",
            "Lower prompt_tokens or new_tokens under speed in quant-gate.yaml.",
        )


def _batches(asked: Speed) -> tuple[int, ...]:
    return tuple(sorted({1, asked.batch}))


def _batch_speed(batch: int, prompt_tokens: int, found: Sequence[Generated]) -> BatchSpeed:
    first = [run.times[1] - run.times[0] for run in found]
    decoding = [run.times[-1] - run.times[1] for run in found]
    new = len(found[0].times) - 1
    return BatchSpeed(
        batch=batch,
        first_token_s=_repeated(first),
        prefill_tokens_per_s=_repeated(batch * prompt_tokens / s for s in first),
        decode_tokens_per_s=_repeated(batch * (new - 1) / s for s in decoding),
        output_tokens_per_s=_repeated(
            batch * new / (prefill + rest) for prefill, rest in zip(first, decoding, strict=True)
        ),
        ms_per_token=_repeated(1000 * s / (new - 1) for s in decoding),
    )


def _repeated(figures: Iterable[float]) -> Repeated:
    found = sorted(figures)
    return Repeated(median=statistics.median(found), low=found[0], high=found[-1])
