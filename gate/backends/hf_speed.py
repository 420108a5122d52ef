"""One run of the model against the clock: transformers' own generation, of a fixed length."""

import sys
from functools import partial
from typing import Any

import numpy as np

from gate.backends import hf_memory, hf_model
from gate.errors import BackendUnavailableError
from gate.speed import Clock, Generated, Workload


def generate(model: Any, tokenizer: Any, workload: Workload, clock: Clock) -> Generated:
    """See `evaluate.Backend.generate`.

    Args:
        model: A transformers model on its devices.
        tokenizer: Its own: prompts hold no special token, which could mean an image.
    """
    import torch

    devices = {parameter.device for parameter in model.parameters()}
    cuda = [device for device in devices if device.type == "cuda"]
    for device in cuda:
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    known = len(model.get_input_embeddings().weight)
    prompts = torch.from_numpy(random_prompts(known, tokenizer, workload)).to(model.device)
    ticks = Ticks(clock)
    what = f"generating {workload.batch} sequences together for their speed"
    with hf_model.quiet(), hf_memory.guarded(what), torch.inference_mode():
        model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            generation_config=_fixed_length(workload.new_tokens),
            streamer=ticks,
        )
    if len(ticks.times) != workload.new_tokens + 1:
        raise BackendUnavailableError(
            f"{type(model).__name__} generates otherwise than token by token: its speed cannot be "
            "measured",
            "Remove speed from quant-gate.yaml.",
        )
    if cuda:
        peak = sum(torch.cuda.max_memory_allocated(device) for device in cuda)
        return Generated(
            ticks.times, peak, "device", torch.cuda.get_device_name(cuda[0]), len(cuda)
        )
    # Another machine, or another number of threads, is as another device.
    threads = torch.get_num_threads()
    number = "1 thread" if threads == 1 else f"{threads} threads"
    processor = f"cpu ({torch.backends.cpu.get_cpu_capability()}, {number})"
    return Generated(ticks.times, _resident_peak(), "process", processor, len(devices))


class Ticks:
    """What transformers takes for a streamer: reads the clock whenever tokens have arrived.

    The first call brings the prompts. Tokens are given once they are in host memory, so that a
    device has done its work by then.

    Source: https://huggingface.co/docs/transformers/internal/generation_utils (BaseStreamer).
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.times: list[float] = []

    def put(self, tokens: Any) -> None:
        """Note the time."""
        self.times.append(self.clock())

    def end(self) -> None:
        """Nothing is held back."""


def random_prompts(known: int, tokenizer: Any, workload: Workload) -> np.ndarray:
    """Ordinary tokens, each as likely: int64, shape (batch, prompt_tokens).

    Args:
        known: Tokens that the model has a row for.
    """
    size = min(len(tokenizer), known)
    added = np.fromiter(tokenizer.added_tokens_decoder, dtype=np.int64)
    ordinary = np.setdiff1d(np.arange(size, dtype=np.int64), added)
    draw = partial(np.random.default_rng(workload.seed).choice, ordinary)
    return np.asarray(draw(size=(workload.batch, workload.prompt_tokens)))


def _fixed_length(new_tokens: int) -> Any:
    """Greedy, without an early end, whatever the checkpoint's generation_config.json wants."""
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        min_new_tokens=new_tokens,
        max_new_tokens=new_tokens,
        pad_token_id=0,
        use_cache=True,
    )


def _resident_peak() -> int:
    """Most bytes of this process that were ever in memory at once."""
    import resource

    # Kilobytes, but on macOS: https://man7.org/linux/man-pages/man2/getrusage.2.html
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
