"""What tensor parallelism would cut through: heads, quantization groups, packed words."""

import math
from collections.abc import Iterator

from gate.architecture import Architecture
from gate.fit.paths import Kinds
from gate.fit.support import Runtime
from gate.quantization import QuantizedLayer, Role, Scheme
from gate.records import Undivided

ROWS = frozenset(
    {
        "o_proj", "down_proj", "w2", "out_proj", "dense_4h_to_h", "c_proj", "wo", "fc2",
        "fc_out",
    }
)  # fmt: skip
"""Layers of which every device holds some inputs.

Source: https://arxiv.org/abs/1909.08053 (section 3), and the `tp_plan` of transformers' models.
"""
COLUMNS = frozenset(
    {
        "q_proj", "q_b_proj", "kv_b_proj", "gate_proj", "up_proj", "w1", "w3", "dense_h_to_4h",
        "fc1", "c_fc",
    }
)  # fmt: skip
"""Layers of which every device holds some outputs."""
KEY_VALUE = frozenset({"k_proj", "v_proj"})
"""As `COLUMNS`, but repeated where there are more devices than key and value heads."""
HALVES = frozenset({"gate_up_proj", "gate_up"})
"""Two layers of `COLUMNS` in one tensor."""

PADDED = frozenset({"mxfp4"})
"""Formats whose runtimes pad what does not divide, as gpt-oss needs with its 2,880 features."""


def undivided(
    method: str | None,
    kinds: Kinds,
    figures: Architecture,
    devices: int,
    runtime: Runtime | None,
) -> tuple[Undivided, ...]:
    """Everything that `devices` cannot share, layers of one kind together.

    Args:
        method: The format's name.
        kinds: Of all layers that the format describes.
        figures: Of the model.
        devices: That share every tensor.
        runtime: One that divides the list of layers cuts through nothing.
    """
    if devices <= 1 or (runtime is not None and runtime.splits.value != "tensors"):
        return ()
    found = list(_heads(figures, devices))
    if method in PADDED:
        return tuple(found)
    reasons: dict[str, tuple[str, int]] = {}
    for layer, alike in kinds:
        reason = _cut(layer, figures, devices)
        if reason:
            first, count = reasons.get(reason, (layer.tensors[Role.WEIGHT].name, 0))
            reasons[reason] = first, count + alike
    found += [
        Undivided(reason=reason, tensor=tensor, count=count)
        for reason, (tensor, count) in reasons.items()
    ]
    return tuple(found)


def _heads(figures: Architecture, devices: int) -> Iterator[Undivided]:
    """Runtimes give every device whole heads, and repeat key and value heads.

    Source: https://github.com/vllm-project/vllm (`verify_with_parallel_config`, and the
    assertions of `LlamaAttention`).
    """
    queries, keys = figures.attention_heads, figures.kv_heads
    if queries and queries % devices:
        yield Undivided(reason=f"{queries:,} attention heads are not divisible by {devices}")
    latent = figures.number("kv_lora_rank") is not None
    if keys and not latent and max(keys, devices) % min(keys, devices):
        yield Undivided(
            reason=f"{keys:,} key and value heads can be neither shared nor repeated "
            f"evenly by {devices} devices"
        )


def _cut(layer: QuantizedLayer, figures: Architecture, devices: int) -> str | None:
    """What is cut through in one layer; None where nothing is."""
    if not layer.packed or layer.scheme is None or layer.shape is None or len(layer.shape) < 2:
        return None
    leaf = layer.name.rpartition(".")[2]
    rows, columns = layer.shape[-2:]
    row_pack, column_pack = _packed(layer, layer.shape[-2:])
    if leaf in ROWS:
        step = _columns_of(layer.scheme)
        return _share(leaf, "in_features", columns, devices, step, column_pack)
    if leaf in KEY_VALUE:
        devices = min(devices, figures.kv_heads or devices)
    elif leaf in HALVES:
        rows //= 2
    elif leaf not in COLUMNS:
        return None
    block = layer.scheme.block_structure
    step = (block[0], "rows of a block") if block else None
    return _share(leaf, "out_features", rows, devices, step, row_pack)


def _share(
    leaf: str, axis: str, size: int, devices: int, step: tuple[int, str] | None, pack: int
) -> str | None:
    """Why one axis cannot be shared; None where it can."""
    share, rest = divmod(size, devices)
    if rest:
        return f"{leaf}: {size:,} {axis} are not divisible by {devices}"
    what = f"{leaf}: {size:,} {axis} on {devices} devices are {share:,} each"
    if step and share % step[0]:
        return f"{what}, which is no multiple of the {step[0]} {step[1]}"
    if share % pack:
        return f"{what}, which is no multiple of the {pack} that one element packs"
    return None


def _columns_of(scheme: Scheme) -> tuple[int, str] | None:
    """Inputs that share a scale."""
    if scheme.block_structure:
        return scheme.block_structure[1], "columns of a block"
    return (scheme.group_size, "of a group") if scheme.group_size else None


def _packed(layer: QuantizedLayer, shape: tuple[int, ...]) -> tuple[int, int]:
    """Neighbours along (out_features, in_features) that one stored element holds.

    A square weight may be packed along either: nothing is claimed of it.
    """
    rows, columns = shape
    stored = sorted(layer.tensors[Role.WEIGHT].shape[-2:])
    count = rows * columns // max(math.prod(stored), 1)
    if count <= 1:
        return 1, 1
    zeros = layer.tensors.get(Role.WEIGHT_ZERO_POINT)
    by_rows = stored == sorted((rows // count, columns))
    by_columns = stored == sorted((rows, columns // count))
    zeros_by_rows = zeros is not None and rows in {size * count for size in zeros.shape}
    return (
        count if (by_rows and not by_columns) or zeros_by_rows else 1,
        count if by_columns and not by_rows else 1,
    )
