"""What FP8 checkpoints in the model's own precision store, and under which names.

Source: https://github.com/huggingface/transformers (`integrations/finegrained_fp8.py`).
"""

from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache

from gate.checkpoint import Checkpoint, TensorInfo
from gate.quantization import FLOAT_DTYPES, Role, Scheme, TensorSpec

SUFFIXES = {
    "weight": Role.WEIGHT,
    "weight_scale_inv": Role.WEIGHT_SCALE,
    "weight_scale": Role.WEIGHT_SCALE,
    "qscale_weight": Role.WEIGHT_SCALE,
    "scale": Role.WEIGHT_SCALE,
    "input_scale": Role.INPUT_SCALE,
    "activation_scale": Role.INPUT_SCALE,
    "qscale_act": Role.INPUT_SCALE,
}
"""DeepSeek-V4 stores `scale`, Mistral `qscale_weight`; `weight_scale` is vLLM's per tensor."""
EXPERT_SUFFIXES = {
    "": Role.WEIGHT,
    "_scale_inv": Role.WEIGHT_SCALE,
    "_scale": Role.WEIGHT_SCALE,
    "_activation_scale": Role.INPUT_SCALE,
}
EXPERTS = {
    f"{leaf}{suffix}": (leaf, role)
    for leaf in ("gate_up_proj", "up_proj", "down_proj")
    for suffix, role in EXPERT_SUFFIXES.items()
}
"""All experts of a layer in one tensor."""
COMPANIONS = (SUFFIXES.keys() - {"weight"}) | (
    {name for name, (_, role) in EXPERTS.items() if role is not Role.WEIGHT}
    | {"k_scale", "v_scale", "kv_scale", "input_scale_ub"}
)

PER_TENSOR = Scheme(8, "float", "tensor")
FP4_EXPERT = Scheme(4, "float", "group", group_size=32)
"""DeepSeek-V4's experts: two E2M1 values a byte, E8M0 scales."""
FLOATS = frozenset({"F32", "BF16", "F16"})
E8M0 = frozenset({"F8_E8M0", "U8"})
SCALAR: tuple[tuple[int, ...], ...] = ((), (1,))


def modules(
    checkpoint: Checkpoint,
) -> tuple[Mapping[str, dict[Role, TensorInfo]], Mapping[str, TensorInfo]]:
    """Modules that bear marks of quantization, and the plain two-dimensional weights."""
    modules: dict[str, dict[Role, TensorInfo]] = defaultdict(dict)
    for name, info in checkpoint.tensors.items():
        parent, _, suffix = name.rpartition(".")
        if suffix in SUFFIXES:
            modules[parent][SUFFIXES[suffix]] = info
        elif suffix in EXPERTS:
            leaf, role = EXPERTS[suffix]
            modules[f"{parent}.{leaf}"][role] = info
    marked, plain = {}, {}
    for module, tensors in modules.items():
        weight = tensors.get(Role.WEIGHT)
        if weight is None or len(tensors) > 1 or weight.dtype not in FLOAT_DTYPES:
            # A learnt `scale` is no mark.
            if weight or not next(iter(tensors.values())).name.endswith(".scale"):
                marked[module] = tensors
        elif len(weight.shape) in (2, 3):
            plain[module] = weight
    return marked, plain


def scale_names(checkpoint: Checkpoint) -> Mapping[Role, str]:
    """Under which names the first scales are stored; the others should be called alike."""
    names: dict[Role, str] = {}
    for name in checkpoint.tensors:
        suffix = name.rpartition(".")[2]
        role = SUFFIXES.get(suffix)
        if role not in (None, Role.WEIGHT, *names) and (
            suffix != "scale" or f"{name[:-5]}weight" in checkpoint.tensors
        ):
            names[role] = suffix  # type: ignore[index]
            if len(names) == 2:
                break
    return names


@lru_cache(maxsize=1 << 12)
def expected(
    scheme: Scheme, static: bool, shape: tuple[int, ...], names: tuple[str, str]
) -> Mapping[Role, TensorSpec]:
    """What a layer of this logical shape stores; dtypes of scales differ between releases."""
    weight = frozenset({"I8", "U8"} if scheme.num_bits == 4 else {"F8_E4M3"})
    scale = E8M0 if scheme.num_bits == 4 else FLOATS | E8M0
    specs = {
        Role.WEIGHT: TensorSpec(weight, stored_as="weight"),
        Role.WEIGHT_SCALE: TensorSpec(scale, _scale_shapes(scheme, shape), names[0]),
    }
    if static and scheme.num_bits == 8:
        single = SCALAR if len(shape) < 3 else ((shape[0],), (shape[0], 1), (shape[0], 1, 1))
        specs[Role.INPUT_SCALE] = TensorSpec(FLOATS, single, names[1])
    return specs


def _scale_shapes(scheme: Scheme, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...] | None:
    if len(shape) < 2:
        return None
    *outer, rows, columns = shape
    if scheme.strategy == "tensor":
        # Gate and up have one each.
        singles = ((*outer, 1, 1), (*outer, 2, 1), (*outer, 1), tuple(outer))
        return singles if outer else SCALAR
    if scheme.strategy == "channel":
        return ((*outer, rows, 1), (*outer, rows))
    if scheme.block_structure:
        down, across = (
            -(-size // block)
            for size, block in zip((rows, columns), scheme.block_structure, strict=True)
        )
        # Gate and up have a block of their own each, however few rows they have.
        return ((*outer, down, across), *(((*outer, 2, across),) if outer and down < 2 else ()))
    groups, rest = divmod(columns, scheme.group_size or columns or 1)
    return () if rest else ((*outer, rows, groups),)
