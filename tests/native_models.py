"""Random models as transformers saves them once bitsandbytes or compressed-tensors has them."""

from pathlib import Path
from typing import Any


def plain(directory: Path, source: Path) -> Path:
    """An unquantized Llama with the tokenizer of `source`, in bfloat16.

    Its layers are as wide as a block of bitsandbytes, whose CPU kernel fails on less.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(source)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        dtype="bfloat16",
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def sharpen(path: Path) -> None:
    """Make a random model sure of what it says: its distributions are no longer all alike."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path / "model.safetensors")
    for name in tensors:
        if "proj" in name or "lm_head" in name:
            tensors[name] = tensors[name] * 8
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def familiarize(path: Path, text: str) -> None:
    """Make a random model expect the tokens of a text, in any order: a baseline must know some.

    One direction, that of every embedding, is left for the head to tell them by.
    """
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    tensors = load_file(path / "model.safetensors")
    tensors["model.embed_tokens.weight"][:, 0] = 0.5
    tensors["lm_head.weight"][:, 0] = -1
    tensors["lm_head.weight"][AutoTokenizer.from_pretrained(path)(text).input_ids, 0] = 1
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def bitsandbytes(directory: Path, original: Path, **options: Any) -> Path:
    """The model as bitsandbytes quantizes it, saved with its tokenizer.

    Args:
        options: Of transformers' `BitsAndBytesConfig`.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    asked = BitsAndBytesConfig(**options)
    model = AutoModelForCausalLM.from_pretrained(original, quantization_config=asked, dtype="auto")
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(original).save_pretrained(directory)
    return directory


def compressed_tensors(directory: Path, original: Path, preset: str) -> Path:
    """The model as compressed-tensors stores it, rounded to nearest, with its tokenizer.

    Args:
        preset: Of the library, weights with a scale a channel.
    """
    import torch
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationConfig,
        QuantizationStatus,
        apply_quantization_config,
        preset_name_to_scheme,
    )
    from compressed_tensors.quantization.utils import calculate_qparams
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(original, dtype="auto")
    scheme = preset_name_to_scheme(preset, ["Linear"])
    groups = {"group_0": scheme}
    apply_quantization_config(model, QuantizationConfig(config_groups=groups, ignore=["lm_head"]))
    with torch.no_grad():
        for module in model.modules():
            if getattr(module, "quantization_scheme", None) is not None:
                low, high = module.weight.aminmax(dim=-1, keepdim=True)
                module.weight_scale.copy_(calculate_qparams(low, high, scheme.weights)[0])
                module.quantization_status = QuantizationStatus.FROZEN
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(directory)
    compressor.update_config(directory)
    AutoTokenizer.from_pretrained(original).save_pretrained(directory)
    return directory
