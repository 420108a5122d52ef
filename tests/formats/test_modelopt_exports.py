"""What ModelOpt really exports, by every recipe that works without a GPU, is sound."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from judging import gather, judge
from modelopt_own import assert_decodes
from tiny_models import gpt_oss, llama, qwen3_moe, vision_language

from gate.quantization import Role

NVFP4 = {"num_bits": (2, 1), "block_sizes": {-1: 16, "type": "dynamic", "scale_bits": (4, 3)}}
FP8_CAST = {"num_bits": (4, 3), "use_constant_amax": True}
NVFP4_CAST = NVFP4 | {"use_constant_amax": True}

VARIANTS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "FP8_KV_CAST": ("FP8_DEFAULT", [{"quantizer_name": "*[kv]_bmm_quantizer", "cfg": FP8_CAST}]),
    "NVFP4_KV_CAST": (
        "NVFP4_DEFAULT",
        [{"quantizer_name": "*[kv]_bmm_quantizer", "cfg": NVFP4_CAST}],
    ),
    "NVFP4_INPUT_SCALE_1": (
        "NVFP4_DEFAULT",
        [{"quantizer_name": "*input_quantizer", "cfg": NVFP4 | {"constant_amax": 2688.0}}],
    ),
    "NVFP4_LM_HEAD": (
        "NVFP4_DEFAULT",
        [
            {"quantizer_name": f"*lm_head*{side}_quantizer", "cfg": NVFP4, "enable": True}
            for side in ("weight", "input")
        ],
    ),
    "MIXED_PART": ("MIXED", [{"quantizer_name": "*layers.1.mlp.down_proj*", "enable": False}]),
}


def configuration(name: str) -> dict[str, Any]:
    """ModelOpt's configuration: a recipe, one of `VARIANTS`, or `recipe+that of the KV cache`."""
    base, _, kv = name.partition("+")
    base, changes = VARIANTS.get(base, (base, []))
    config = copy.deepcopy(tiny_models.recipe(f"{base}+{kv}" if kv else base))
    config["quant_cfg"] = [*config["quant_cfg"], *changes]
    return config


def exported(model: Any, name: str, path: Path) -> Path:
    """The export, with the tokenizer that ModelOpt leaves out."""
    tiny_models.export(model, configuration(name), path)
    (path / "tokenizer.json").write_text(json.dumps({"version": "1.0"}))
    return path


def llama4() -> Any:
    """A random Llama 4, whose experts are stacked too, beside a shared one."""
    import torch
    from transformers import Llama4ForCausalLM, Llama4TextConfig

    config = Llama4TextConfig(
        **tiny_models.SMALL,
        num_experts_per_tok=1,
        intermediate_size_mlp=256,
        interleave_moe_layer_step=1,
    )
    return Llama4ForCausalLM(config).to(torch.bfloat16)


DENSE = {
    "FP8_DEFAULT": "FP8",
    "FP8_PER_CHANNEL_PER_TOKEN": "FP8_PER_CHANNEL_PER_TOKEN",
    "FP8_2D_BLOCKWISE_WEIGHT_ONLY": "fp8_pb_wo",
    "NVFP4_DEFAULT": "NVFP4",
    "NVFP4_MLP_ONLY": "NVFP4",
    "NVFP4_OMLP_ONLY": "NVFP4",
    "NVFP4_INPUT_SCALE_1": "NVFP4",
    "NVFP4_LM_HEAD": "NVFP4",
    "W4A16_NVFP4": "W4A16_NVFP4",
    "NVFP4_MLP_WEIGHT_ONLY": "W4A16_NVFP4",
    "W4A8_NVFP4_FP8": "W4A8_NVFP4_FP8",
    "MXFP8_DEFAULT": "MXFP8",
    "MXFP4_DEFAULT": "mxfp4",
    "MXFP4_MLP_WEIGHT_ONLY": "mxfp4",
    "W4A8_MXFP4_FP8": "W4A8_MXFP4_FP8",
    "INT4_AWQ": "W4A16_AWQ",
    "INT4_BLOCKWISE_WEIGHT_ONLY": "W4A16_AWQ",
    "W4A8_AWQ_BETA": "W4A8_AWQ",
    "INT8_DEFAULT": "W8A8_SQ_PER_CHANNEL",
    "INT8_SMOOTHQUANT": "W8A8_SQ_PER_CHANNEL",
    "INT8_WEIGHT_ONLY": "W8A16",
    "FP8_DEFAULT+FP8_KV": "FP8",
    "FP8_DEFAULT+NVFP4_KV": "FP8",
    "NVFP4_DEFAULT+FP8_KV": "NVFP4",
    "NVFP4_DEFAULT+NVFP4_KV": "NVFP4",
    "FP8_DEFAULT+FP8_AFFINE_KV": "FP8",
    "NVFP4_DEFAULT+NVFP4_AFFINE_KV": "NVFP4",
    "FP8_KV_CAST": "FP8",
    "NVFP4_KV_CAST": "NVFP4",
    "MIXED": "FP8 NVFP4",
    "MIXED_PART": "FP8 NVFP4",
    "MIXED+FP8_KV": "FP8 NVFP4",
}
"""Recipe to the algorithms that it declares."""

EXPERTS = {
    "NVFP4_EXPERTS_ONLY": "NVFP4",
    "NVFP4_DEFAULT": "NVFP4",
    "FP8_DEFAULT": "FP8",
    "MXFP4_DEFAULT": "mxfp4",
    "MXFP8_DEFAULT": "MXFP8",
    "INT8_SMOOTHQUANT": "W8A8_SQ_PER_CHANNEL",
    "W4A8_NVFP4_FP8": "W4A8_NVFP4_FP8",
    "MIXED": "FP8 NVFP4",
}
STACKED = {
    "FP8_DEFAULT": "FP8",
    "FP8_PER_CHANNEL_PER_TOKEN": "FP8_PER_CHANNEL_PER_TOKEN",
    "FP8_2D_BLOCKWISE_WEIGHT_ONLY": "fp8_pb_wo",
    "NVFP4_DEFAULT": "NVFP4",
    "W4A16_NVFP4": "W4A16_NVFP4",
    "W4A8_NVFP4_FP8": "W4A8_NVFP4_FP8",
    "MXFP4_DEFAULT": "mxfp4",
    "MXFP8_DEFAULT": "MXFP8",
    "MIXED": "FP8 NVFP4",
}
EXPORTS = [
    *((llama, recipe, algorithms) for recipe, algorithms in DENSE.items()),
    *((qwen3_moe, recipe, algorithms) for recipe, algorithms in EXPERTS.items()),
    *((gpt_oss, recipe, algorithms) for recipe, algorithms in STACKED.items()),
    (llama4, "FP8_DEFAULT", "FP8"),
    (llama4, "NVFP4_DEFAULT", "NVFP4"),
    (llama4, "NVFP4_EXPERTS_ONLY", "NVFP4"),
    (vision_language, "NVFP4_DEFAULT", "NVFP4"),
    (vision_language, "FP8_DEFAULT+FP8_KV", "FP8"),
]


@pytest.mark.model
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("build", "recipe", "algorithms"),
    EXPORTS,
    ids=[f"{build.__name__}-{recipe}" for build, recipe, _ in EXPORTS],
)
def test_an_export_is_sound(
    build: Callable[[], Any], recipe: str, algorithms: str, tmp_path: Path
) -> None:
    """No error; every layer described, its logical shape that of the model it was made from.

    And decoded as ModelOpt does it.
    """
    from safetensors import safe_open

    path = exported(build(), recipe, tmp_path / "export")
    result = judge(path)
    assert result.errors == ()
    assert " ".join(result.algorithms) == algorithms
    evidence = gather(path)
    packed = {layer.tensors[Role.WEIGHT].name: layer for layer in evidence.layers}
    assert packed.keys() == {
        info.name
        for info in evidence.checkpoint.tensors.values()
        if info.dtype in {"U8", "I8", "F8_E4M3"} and not info.name.endswith("_scale")
    }
    with safe_open(tmp_path / "export-plain" / "model.safetensors", "np") as plain:
        shapes = {name: tuple(plain.get_slice(name).get_shape()) for name in plain.keys()}  # noqa: SIM118
    for name, layer in packed.items():
        assert layer.declared
        assert layer.expected
        # As the model stores it, stacked experts with their inputs first.
        *experts, outputs, inputs = layer.shape
        assert shapes[name] == ((*experts, inputs, outputs) if experts else layer.shape), name
    assert assert_decodes(path) == set(algorithms.upper().split())
