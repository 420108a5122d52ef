"""quant-gate: the quality gate for quantized LLM checkpoints."""

__version__ = "0.1.0"
