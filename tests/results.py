"""Small stored results, for whoever compares or reports them."""

import math
from collections.abc import Sequence

from gate.records import (
    BatchSpeed,
    EvalResult,
    PerplexityResult,
    Repeated,
    SampleScore,
    Size,
    SizeBucket,
    TaskResult,
    TaskSetup,
    Throughput,
)

DIGEST = {name: f"{index:064x}" for index, name in enumerate("abcdefgh", start=1)}


def task(
    scores: Sequence[float],
    *,
    name: str = "ifeval",
    metric: str = "inst_level_strict_acc",
    filter: str = "none",
    higher_is_better: bool = True,
) -> TaskResult:
    """One metric with these scores, document by document."""
    samples = tuple(
        SampleScore(doc_id=i, doc_hash=f"{i:064x}", prompt_hash=f"{i + 1000:064x}", score=score)
        for i, score in enumerate(scores)
    )
    return TaskResult(
        task=name, metric=metric, filter=filter, higher_is_better=higher_is_better, samples=samples
    )


def perplexity(window_nll: Sequence[float], *, name: str = "domain.txt") -> PerplexityResult:
    """Perplexity over windows of 100 scored tokens."""
    return PerplexityResult(
        name=name,
        text_digest=DIGEST["a"],
        tokens_digest=DIGEST["b"],
        window=101,
        window_nll=tuple(window_nll),
        scored=100,
    )


def setup(**changes: object) -> TaskSetup:
    """How ifeval was asked."""
    stated = {
        "task": "ifeval",
        "version": "4.0",
        "task_hash": DIGEST["c"],
        "n_documents": 541,
        "output_type": "generate_until",
        "num_fewshot": 0,
        "apply_chat_template": True,
        "generation_kwargs": {"until": [], "max_gen_toks": 1280},
    }
    return TaskSetup.model_validate(stated | changes)


def result(*tasks: TaskResult, perplexities: Sequence[PerplexityResult] = (), **changes: object):
    """A stored result of an unquantized model, with these fields changed."""
    stated = {
        "gate_version": "0.1.0",
        "model": "acme/model",
        "revision": "0e9e39f249a1",
        "weights_digest": DIGEST["d"],
        "config_digest": DIGEST["e"],
        "tokenizer_digest": DIGEST["f"],
        "chat_template_sha": DIGEST["g"],
        "format": None,
        "backend": "hf",
        "device": "cpu",
        "dtype": "bfloat16",
        "kernel": "transformers",
        "activations": "emulate",
        "setups": (setup(),),
        "tasks": tasks,
        "perplexities": tuple(perplexities),
        "size": size(269_000_000, 16.0),
        "seed": "0",
        "batch_size": 8,
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "date": "2026-11-21T10:00:00Z",
        "duration_s": 61.5,
    }
    return EvalResult.model_validate(stated | changes)


def size(stored_bytes: int, bits: float, reference_bytes: int | None = None) -> Size:
    """A size of that many bytes."""
    bucket = SizeBucket(stored_bytes=stored_bytes, parameters=134_500_000)
    return Size(
        stored_bytes=stored_bytes,
        parameters=134_500_000,
        bits_per_weight=bits,
        linear_bits_per_weight=None if bits == 16 else bits - 1,
        by_dtype={"BF16": bucket},
        by_class={"linear": bucket},
        reference_bytes=reference_bytes,
    )


def throughput(
    decode: tuple[float, float, float] = (99, 100, 101), **changes: object
) -> Throughput:
    """Speed at batch 1 and 8; `decode` is the lowest, median and highest tokens/s of both."""

    def figures(low: float, median: float, high: float, factor: float = 1.0) -> Repeated:
        return Repeated(median=median * factor, low=low * factor, high=high * factor)

    batches = [
        BatchSpeed(
            batch=batch,
            first_token_s=figures(0.1, 0.1, 0.1),
            prefill_tokens_per_s=figures(999, 1000, 1001),
            decode_tokens_per_s=figures(*decode),
            output_tokens_per_s=figures(*decode, factor=0.9),
            ms_per_token=figures(*(8000 / rate if rate else math.inf for rate in reversed(decode))),
        )
        for batch in (1, 8)
    ]
    stated = {
        "device": "NVIDIA H100 80GB HBM3",
        "devices": 1,
        "dtype": "bfloat16",
        "kernel": "unquantized, bfloat16",
        "emulated": False,
        "prompt_tokens": 512,
        "new_tokens": 128,
        "repeats": 3,
        "batches": batches,
        "peak_bytes": 2_000_000_000,
        "peak_of": "device",
    }
    return Throughput.model_validate(stated | changes)
