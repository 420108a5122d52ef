"""Random models small enough to be made in a test, and ModelOpt's real exports of them."""

import copy
from pathlib import Path
from typing import Any

from gate.checkpoint import Checkpoint, open_checkpoint
from gate.containers import CONTAINERS
from gate.formats import FORMATS
from gate.quantization import Format, identify

VOCABULARY = 128
NVFP4 = {"num_bits": (2, 1), "block_sizes": {-1: 16, "type": "dynamic", "scale_bits": (4, 3)}}


def opened(path: Path) -> tuple[Checkpoint, Format | None]:
    """A checkpoint and its format."""
    checkpoint = open_checkpoint(path, CONTAINERS)
    return checkpoint, identify(checkpoint, FORMATS)


def llama(hidden: int = 256, intermediate: int = 512) -> Any:
    """A random untied Llama of two layers in bfloat16."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        dtype="bfloat16",
    )
    return LlamaForCausalLM(config).to(torch.bfloat16)


def qwen3_moe() -> Any:
    """A random untied Qwen3-MoE of two layers and four experts in bfloat16."""
    import torch
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        moe_intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        num_experts=4,
        num_experts_per_tok=2,
        tie_word_embeddings=False,
        dtype="bfloat16",
    )
    return Qwen3MoeForCausalLM(config).to(torch.bfloat16)


SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "num_local_experts": 4,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "dtype": "bfloat16",
}


def gpt_oss() -> Any:
    """A random gpt-oss: all experts of a layer in one tensor of three dimensions."""
    import torch
    from transformers import GptOssConfig, GptOssForCausalLM

    config = GptOssConfig(**SMALL, num_experts_per_tok=2, eos_token_id=1)
    return GptOssForCausalLM(config).to(torch.bfloat16)


def recipe(name: str) -> dict[str, Any]:
    """ModelOpt's configuration of that name; MIXED is FP8 attention with an NVFP4 MLP.

    `FP8_DEFAULT+FP8_KV` is one with that of the KV cache.
    """
    import modelopt.torch.quantization as mtq

    name, _, kv = name.partition("+")
    found = getattr(mtq, f"{'FP8_DEFAULT' if name == 'MIXED' else name}_CFG")
    if name != "MIXED" and not kv:
        return found
    found = copy.deepcopy(found)
    if name == "MIXED":
        found["quant_cfg"] += [
            {"quantizer_name": f"*mlp*{side}_quantizer", "cfg": dict(NVFP4)}
            for side in ("weight", "input")
        ]
    if kv:
        found["quant_cfg"] += copy.deepcopy(getattr(mtq, f"{kv}_CFG")["quant_cfg"])
    return found


def export(model: Any, name: "str | dict[str, Any]", path: Path, **options: Any) -> Any:
    """Quantize with ModelOpt, export to `path`, and give back the quantized model.

    Args:
        model: A random model; saved and loaded once, which ModelOpt's exporter asks for.
        name: Of the recipe, or ModelOpt's configuration itself; see `recipe`.
        path: Of the checkpoint.
        options: For the exporter.
    """
    import modelopt.torch.quantization as mtq
    import torch
    from modelopt.torch.export import export_hf_checkpoint

    plain = path.with_name(path.name + "-plain")
    model.save_pretrained(plain)
    model = type(model).from_pretrained(plain, dtype="auto")
    ids = torch.arange(512).reshape(4, 128) * 7 % VOCABULARY
    config = recipe(name) if isinstance(name, str) else name
    quantized = mtq.quantize(model, config, lambda m: m(ids))
    with torch.inference_mode():
        # The exporter packs the weights of what it is given.
        export_hf_checkpoint(copy.deepcopy(quantized), export_dir=path, **options)
    return quantized


def vision_language() -> Any:
    """A random Qwen2.5-VL of two text layers and one vision block in bfloat16."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [4, 6, 6],
                "rope_theta": 1e4,
            },
        },
        vision_config={
            "depth": 1,
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 128,
            "fullatt_block_indexes": [0],
        },
        dtype="bfloat16",
    )
    return Qwen2_5_VLForConditionalGeneration(config).to(torch.bfloat16)
