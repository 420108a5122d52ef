"""Models that others quantized compute in `hf` what they compute in the library that made them."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import edit_json, read_safetensors, write_safetensors
from compressed_checkpoints import compress, raw, values
from optimum.quanto import QuantizedModelForCausalLM, qtypes, quantization_map
from tiny_models import VOCABULARY, llama, opened
from transformers import AutoModelForCausalLM, FineGrainedFP8Config, GptOssConfig
from transformers import GptOssForCausalLM as GptOss
from transformers.integrations.finegrained_fp8 import Fp8Quantize

from gate.backends import hf_model
from gate.backends.hf_stream import Streamed

pytestmark = pytest.mark.model

IDS = torch.arange(48).reshape(2, 24) * 7 % VOCABULARY


def ours(path: Path) -> Any:
    checkpoint, form = opened(path)
    return hf_model.load(checkpoint, form, reserve=lambda needed: {})


def theirs(path: Path) -> Any:
    """transformers' own loading: on a CPU it decodes what it loads."""
    return AutoModelForCausalLM.from_pretrained(path, dtype="auto")


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS).logits


def compressed(scheme: dict[str, Any]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        llama().save_pretrained(path)
        compress(path, scheme)

    return make


def block_fp8(path: Path) -> None:
    llama(192, 320).save_pretrained(path)
    config = FineGrainedFP8Config(weight_block_size=(64, 64))
    quantize = Fp8Quantize(SimpleNamespace(quantization_config=config))
    stored = read_safetensors(path / "model.safetensors")
    for name in [name for name in stored if name.endswith("_proj.weight")]:
        made = quantize._quantize_one(name, values(stored.pop(name)))
        stored |= {key: raw(value) for key, value in made.items()}
    write_safetensors(path / "model.safetensors", stored)
    declared = {"quant_method": "fp8", "weight_block_size": [64, 64]}
    edit_json(path, "config.json", lambda c: c.update(quantization_config=declared))


def gpt_oss(path: Path) -> None:
    """Experts of random codes; the library that packs real ones needs a GPU."""
    torch.manual_seed(0)
    config = GptOssConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_local_experts=4,
        num_experts_per_tok=2,
        layer_types=["sliding_attention", "full_attention"],
        dtype="bfloat16",
    )
    GptOss(config).to(torch.bfloat16).save_pretrained(path)
    stored = read_safetensors(path / "model.safetensors")
    random = np.random.default_rng(0)
    for name in [name for name in stored if name.endswith(("gate_up_proj", "down_proj"))]:
        _, (experts, inputs, outputs), _ = stored.pop(name)
        shape = (experts, outputs, inputs // 32)
        blocks = random.integers(0, 256, (*shape, 16), np.uint8)
        stored[f"{name}_blocks"] = ("U8", blocks.shape, blocks.tobytes())
        stored[f"{name}_scales"] = (
            "U8",
            shape,
            random.integers(118, 122, shape, np.uint8).tobytes(),
        )
    write_safetensors(path / "model.safetensors", stored)
    declared = {"quant_method": "mxfp4", "modules_to_not_convert": ["self_attn", "router"]}
    edit_json(path, "config.json", lambda c: c.update(quantization_config=declared))


INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 64}
FP8 = {"num_bits": 8, "type": "float", "strategy": "channel"}
NVFP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
MADE: dict[str, Callable[[Path], None]] = {
    # transformers 5.23 does not load zero points that are packed.
    "pack-quantized": compressed({"weights": INT4}),
    "float-quantized": compressed({"weights": FP8}),
    "nvfp4": compressed({"weights": NVFP4}),
    "block FP8": block_fp8,
    "gpt-oss": gpt_oss,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MADE)
def test_logits_are_the_librarys_own(name: str, tmp_path: Path) -> None:
    """To the last bit: what is decoded is rounded to the same BF16 weights."""
    path = tmp_path / "m"
    MADE[name](path)
    found = logits(ours(path))
    assert found.isfinite().all() and found.std() > 0
    assert torch.equal(found, logits(theirs(path)))


@pytest.mark.parametrize("name", ["pack-quantized", "gpt-oss"])
def test_layer_by_layer_they_are_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m"
    MADE[name](path)
    checkpoint, form = opened(path)
    streamed = Streamed(checkpoint, form, torch.device("cpu"))
    (found,) = streamed.logits([IDS.numpy()])
    assert torch.equal(found, logits(ours(path)))


@pytest.mark.parametrize("weights", ["qint8", "qfloat8"])
def test_quantos_own_model(weights: str, tmp_path: Path) -> None:
    """Its kernels multiply by the scales afterwards, in BF16: logits of 0.1 differ by 1 %."""
    model = QuantizedModelForCausalLM.quantize(llama(), weights=qtypes[weights])
    model.save_pretrained(tmp_path / "m")
    assert json.loads((tmp_path / "m" / "quanto_qmap.json").read_text()) == quantization_map(
        model._wrapped
    )
    found, expected = logits(ours(tmp_path / "m")), logits(model)
    assert torch.allclose(found, expected, atol=0.02, rtol=0)
