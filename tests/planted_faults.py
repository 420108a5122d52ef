"""Faults that exporters have really made, planted into a sound export of ModelOpt."""

import random
from pathlib import Path

import numpy as np
from checkpoints import Tensor, edit_json, edit_tensors, f32

HEAD = "lm_head"
EMBEDDING = "model.embed_tokens.weight"

HEAD_INPUT_AMAX = 128
"""Above every input of SmolLM2's head; the largest that were seen is 55."""

COARSE = (1, 64, 1024)
"""Times the scale of the largest weight: what a scale for other weights leaves."""

Tensors = dict[str, Tensor]


def plant(path: Path, fault: str, seed: int) -> str:
    """Plant one fault into a copy of an export; the name of the module that has it.

    Args:
        path: The copy: of an FP8 export for `scale` and `head`, of an NVFP4 one for `nibbles`.
        fault: `scale`: one weight's scale is four times too large. `head`: the tied head is
            stored once more, quantized with one scale. `nibbles`: the two weights of every byte of
            one layer have changed places.
        seed: Of the module, or of the head's scale.
    """
    # Which module it is must only be the same each time.
    draw = random.Random(f"{fault}/{seed}")
    names: list[str] = []

    def edit(tensors: Tensors) -> None:
        quantized = sorted(
            name.removesuffix(".weight_scale") for name in tensors if name.endswith("weight_scale")
        )
        names.append(HEAD if fault == "head" else draw.choice(quantized))
        if fault == "head":
            tensors |= head(tensors, draw.choice(COARSE))
        else:
            {"scale": _scale, "nibbles": _nibbles}[fault](tensors, names[0])

    edit_tensors(path, edit)
    if fault == "head":
        _declare_head(path)
    return names[0]


def _scale(tensors: Tensors, module: str) -> None:
    dtype, shape, raw = tensors[f"{module}.weight_scale"]
    tensors[f"{module}.weight_scale"] = dtype, shape, (4 * np.frombuffer(raw, "<f4")).tobytes()


def _nibbles(tensors: Tensors, module: str) -> None:
    dtype, shape, raw = tensors[f"{module}.weight"]
    codes = np.frombuffer(raw, np.uint8)
    tensors[f"{module}.weight"] = dtype, shape, (codes << 4 | codes >> 4).tobytes()


def head(tensors: Tensors, coarse: float) -> Tensors:
    """The embedding as a head in FP8, with one scale so many times coarser than it must be."""
    import torch

    _, shape, raw = tensors[EMBEDDING]
    weight = torch.frombuffer(bytearray(raw), dtype=torch.bfloat16).float().reshape(shape)
    scale = float(weight.abs().max()) / 448 * coarse
    codes = (weight / scale).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    return {
        f"{HEAD}.weight": ("F8_E4M3", shape, codes.tobytes()),
        f"{HEAD}.weight_scale": f32((), scale),
        f"{HEAD}.input_scale": f32((), HEAD_INPUT_AMAX / 448),
    }


def _declare_head(path: Path) -> None:
    def nested(value: dict) -> None:
        value["quantization"]["exclude_modules"].remove(HEAD)

    def flat(value: dict) -> None:
        value["quantization_config"]["ignore"].remove(HEAD)
        value["tie_word_embeddings"] = False

    edit_json(path, "hf_quant_config.json", nested)
    edit_json(path, "config.json", flat)
