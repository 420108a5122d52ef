"""GPTQModel's own dequantization, run by the Python of an environment of its own.

python gptqmodel_own.py FILE                 its values of a safetensors file's layers: FILE.own
python gptqmodel_own.py MODEL DIRECTORY BITS    quantizes a model, and saves it
"""

import json
import os
import sys
from typing import Any

os.environ["GPTQ_TORCH_TRITON_DEQUANT"] = "0"
os.environ["GPTQMODEL_CPU_WORKERS"] = "2"  # fewer are refused


def export(model: str, directory: str, bits: str) -> None:
    """Quantize by the library's own GPTQ: 4 bits in activation order, 3 asymmetric and as v2."""
    from gptqmodel import GPTQModel, QuantizeConfig

    config = QuantizeConfig(
        bits=int(bits),
        group_size=32,
        desc_act=bits == "4",
        sym=bits != "3",
        format="gptq_v2" if bits == "3" else "gptq",
    )
    loaded = GPTQModel.load(model, config, device="cpu")
    rows = [[(37 * row + 11 * place) % 128 for place in range(64)] for row in range(8)]
    loaded.quantize([{"input_ids": row, "attention_mask": [1] * 64} for row in rows])
    loaded.save(directory)


def dequantize(file: str) -> None:
    """Dequantize each layer as its declaration, in the file's metadata, says."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(file, "pt") as stored:
        declared = json.loads(stored.metadata()["declared"])
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    own = {
        layer: (_awq if config["quant_method"] == "awq" else _gptq)(
            {suffix: tensors[f"{layer}.{suffix}"] for suffix in config["stored"]}, config
        )
        for layer, config in declared.items()
    }
    save_file({f"{layer}.own": values.contiguous() for layer, values in own.items()}, f"{file}.own")


def _gptq(tensors: dict[str, Any], config: dict[str, Any]) -> Any:
    """By the kernel that every other kernel of the library is tested against."""
    import torch
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module

    bits, outputs = config["bits"], tensors["qweight"].shape[1]
    layer = TorchLinear(
        bits=bits,
        group_size=config["group_size"],
        sym=config["sym"],
        desc_act=config["desc_act"],
        in_features=tensors["g_idx"].shape[0],
        out_features=outputs,
        bias=False,
    )
    for suffix, value in tensors.items():
        setattr(layer, suffix, value)
    if config["checkpoint_format"] == "gptq":
        convert_gptq_v1_to_v2_format_module(layer, bits=bits, pack_dtype=torch.int32)
    return layer.eval().dequantize_weight().T


def _awq(tensors: dict[str, Any], config: dict[str, Any]) -> Any:
    """By the function with which its kernels and AutoAWQ's multiply."""
    from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm

    size = config["group_size"] if config["group_size"] > 0 else tensors["qweight"].shape[0]
    stored = tensors["qweight"], tensors["qzeros"], tensors["scales"]
    return dequantize_gemm(*stored, config["bits"], size).T


if __name__ == "__main__":
    (export if len(sys.argv) > 2 else dequantize)(*sys.argv[1:])
