"""Rule quant-config-unreadable."""

from gate.rule import OpeningRule


class QuantConfigUnreadable(OpeningRule):
    """The quantization configuration cannot be read.

    Flags:
        hf_quant_config.json is no JSON object, or quantization_config in config.json is no object.
    Why:
        Runtimes fall back to unquantized loading and read packed codes as weights.
    Repair:
        Export the checkpoint again, or restore the file from the export.
    Source:
        https://github.com/NVIDIA/TensorRT-LLM/pull/3772
    """
