"""How much memory of each device a checkpoint needs."""

from collections.abc import Collection, Iterator, Sequence

from gate.architecture import Architecture, architecture
from gate.checkpoint import Checkpoint
from gate.fit.paths import shown
from gate.fit.support import Gpu, Runtime
from gate.quantization import FLOAT_DTYPES, Format, QuantizedLayer
from gate.records import MemoryNeed, Target
from gate.size import is_tied_head, parameters, workspace_bytes

KV_BYTES = {"FP8": 1.0, "INT8": 1.0, "NVFP4": 0.5625, "NVFP4_AFFINE": 0.5625}
"""Bytes of a cached value by `kv_cache_quant_algo`; NVFP4 has a scale byte for 16 values.

Source: https://github.com/NVIDIA/Model-Optimizer (`modelopt/torch/export/quant_utils.py`).
"""
COMPUTED_BYTES = 2
"""Of a value that is not quantized: runtimes compute in 16 bits."""

UNCACHED = frozenset({"linear_attention", "mamba", "mamba2", "conv", "recurrent", "mlp", "moe",
                      "other"})  # fmt: skip
"""Kinds of layers whose state does not grow with the context."""
WINDOWED = frozenset({"sliding_attention", "chunked_attention", "local_attention"})
PARTLY = (
    "full_attention_interval", "attn_layer_period", "sliding_window_pattern",
    "global_attn_every_n_layers", "global_head_dim", "num_kv_shared_layers",
)  # fmt: skip
"""Figures by which some layers cache less, in ways of their own."""

LARGEST = 2**31
"""No figure of a real architecture is as large."""


def memory(
    checkpoint: Checkpoint,
    form: Format | None,
    layers: Sequence[QuantizedLayer],
    target: Target,
    runtime: Runtime | None,
    gpu: Gpu | None,
    decoded: Collection[str],
) -> MemoryNeed:
    """What each device needs, and what it has.

    Args:
        checkpoint: What is loaded.
        form: Its format.
        layers: All that the format describes.
        target: Where it is meant to run.
        runtime: What is known of the target's runtime.
        gpu: What is known of the target's devices.
        decoded: Algorithms, as `Execution` has them, whose weights the runtime decodes.
    """
    devices = max(target.tensor_parallel, 1)
    packed, unpacked = _weights(checkpoint, form, tuple(layers), decoded)
    figures = architecture(checkpoint)
    kv_bytes, exact = _kv_bytes(checkpoint, form, runtime)
    by_heads = runtime is None or runtime.splits.value == "tensors"
    cache = None
    notes = ["the KV cache is not counted: no context was named"]
    if target.context is not None:
        found = _kv_cache(figures, target, kv_bytes, devices, by_heads)
        notes = ["the KV cache is not counted: the architecture does not tell its size"]
        if found is not None:
            cache, exact = found[0], exact and found[1]
            notes = [] if exact else ["the KV cache is the most that it can take"]
    return MemoryNeed(
        weights=-(-(packed + unpacked) // devices),
        kv_cache=cache,
        kv_cache_exact=exact,
        workspace=workspace_bytes(unpacked // devices),
        available=_available(target, gpu, devices),
        notes=tuple(notes),
    )


def _available(target: Target, gpu: Gpu | None, devices: int) -> int | None:
    if target.memory_bytes is not None:
        return target.memory_bytes // devices
    return gpu.memory_gb.value * 10**9 if gpu and gpu.memory_gb else None


def _weights(
    checkpoint: Checkpoint,
    form: Format | None,
    layers: tuple[QuantizedLayer, ...],
    decoded: Collection[str],
) -> tuple[int, int]:
    """Bytes that stay as they are stored, and bytes that come from decoding."""
    counts = parameters(checkpoint, form, layers)
    unpacked = {
        info.name
        for layer in (layers if decoded else ())
        if layer.packed and shown(layer.algo) in decoded
        for info in layer.tensors.values()
    }
    stays = comes = 0
    for name, info in checkpoint.tensors.items():
        if is_tied_head(checkpoint, name):
            continue
        if name in unpacked:
            comes += counts[name] * COMPUTED_BYTES
        elif info.dtype in FLOAT_DTYPES and counts[name]:
            stays += min(info.nbytes, counts[name] * COMPUTED_BYTES)
        else:
            stays += info.nbytes
    return stays, comes


def _kv_bytes(
    checkpoint: Checkpoint, form: Format | None, runtime: Runtime | None
) -> tuple[float, bool]:
    """Bytes of a cached value, and whether that is certain."""
    algo = next(_kv_algorithms(checkpoint, form), "")
    declared = KV_BYTES.get(algo.upper())
    if declared is None:
        return COMPUTED_BYTES, True
    if runtime is None:
        return declared, True
    if runtime.kv_cache is None:
        return COMPUTED_BYTES, False
    return (declared if algo.upper() in runtime.kv_cache.value else COMPUTED_BYTES), True


def _kv_algorithms(checkpoint: Checkpoint, form: Format | None) -> Iterator[str]:
    """What each configuration declares of the KV cache."""
    for declared in form.declarations(checkpoint) if form else ():
        if declared.kv_cache_quant_algo:
            yield declared.kv_cache_quant_algo
    scheme = (checkpoint.quantization_config or {}).get("kv_cache_scheme")
    if isinstance(scheme, dict) and scheme.get("num_bits") == 8:
        yield "FP8" if scheme.get("type") == "float" else "INT8"


def _kv_cache(
    figures: Architecture, target: Target, kv_bytes: float, devices: int, by_heads: bool
) -> tuple[int, bool] | None:
    """Bytes on each device, and whether that is exact or a bound; None without the figures.

    Args:
        figures: Of the model.
        target: For its context and concurrency.
        kv_bytes: Of one cached value.
        devices: That share the cache.
        by_heads: Whether they share its heads, rather than its layers.
    """
    values = _values_per_token(figures, devices if by_heads else 1)
    cached = _cached_tokens(figures, target.context or 0)
    if values is None or cached is None:
        return None
    tokens, exact = cached
    total = int(tokens * values * kv_bytes * target.concurrency)
    return (total if by_heads else -(-total // devices)), exact


def kv_values(figures: Architecture, context: int) -> int | None:
    """Values that one sequence of so many tokens keeps on one device; None without the figures."""
    values, cached = _values_per_token(figures, 1), _cached_tokens(figures, context)
    return values * cached[0] if values is not None and cached is not None else None


def _values_per_token(figures: Architecture, devices: int) -> int | None:
    """Values that one layer keeps of one token on each device.

    Multi-head latent attention keeps one latent vector, which every device needs whole; heads
    are shared, and repeated where there are more devices than heads.

    Source: arXiv 2405.04434, section 2.1.
    """
    rank = figures.number("kv_lora_rank")
    if rank:
        return _sane(rank + (figures.number("qk_rope_head_dim") or 0))
    heads, width = figures.kv_heads, figures.head_dim
    if not heads or not width:
        return None
    width = max(width, figures.number("global_head_dim") or 0)
    return _sane(-(-heads // devices) * (width + (figures.number("v_head_dim") or width)))


def _cached_tokens(figures: Architecture, context: int) -> tuple[int, bool] | None:
    """Tokens that all layers of one sequence keep, and whether that is exact or a bound."""
    count = figures.layers
    if not count or _sane(count) is None:
        return None
    window = figures.window
    kinds = figures.layer_types
    if len(kinds) != count:
        exact = window is None or window >= context
        return count * context, exact and not any(figures.number(name) for name in PARTLY)
    total, exact = 0, not any(figures.number(name) for name in PARTLY[-2:])
    for kind in kinds:
        if kind in WINDOWED:
            total += min(window or context, context)
        elif kind not in UNCACHED:
            total += context
            exact = exact and "attention" in kind
    return total, exact


def _sane(value: int) -> int | None:
    return value if value <= LARGEST else None
