"""What transformers builds for a checkpoint: its configuration, its class and its dtype."""

from typing import Any

from gate.backends import hf_gguf
from gate.checkpoint import Checkpoint
from gate.errors import BackendUnavailableError

TORCH_DTYPES = {
    "BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64", "BOOL": "bool",
    "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
}  # fmt: skip
"""safetensors' names of what a model holds as it is stored."""

MALFORMED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What transformers raises on a configuration that it cannot make sense of."""


def config(checkpoint: Checkpoint, trust_remote_code: bool) -> Any:
    """The model's configuration without its quantization."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        if checkpoint.whole_file is not None:
            return hf_gguf.config(checkpoint)
        config = AutoConfig.from_pretrained(
            checkpoint.path, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except (StrictDataclassError, *MALFORMED) as error:
        raise _unsupported(checkpoint, " ".join(str(error).split())) from error
    for part in (config, getattr(config, "text_config", None)):
        if part is not None and getattr(part, "quantization_config", None) is not None:
            del part.quantization_config
    return config


def model_class(checkpoint: Checkpoint, config: Any, trust_remote_code: bool) -> Any:
    """The class that `architectures` names: transformers' own, or the checkpoint's if trusted."""
    import transformers
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    if checkpoint.whole_file is not None:
        return transformers.AutoModelForCausalLM._model_mapping[type(config)]
    names = [name for name in config.architectures or () if isinstance(name, str)]
    if not names:
        raise _unsupported(checkpoint, "config.json names no architectures")
    for name in names:
        found = getattr(transformers, name, None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            if not found.can_generate():
                raise _unsupported(checkpoint, f"{name} is no language model")
            return found
    reference = (getattr(config, "auto_map", None) or {}).get("AutoModelForCausalLM")
    if not reference:
        raise _unsupported(checkpoint, f"there is no class {names[0]}")
    if not trust_remote_code:
        raise BackendUnavailableError(
            f"{names[0]} of {checkpoint.source} is the checkpoint's own Python code: {reference}",
            "If you trust it, set trust_remote_code: true in the settings.",
        )
    return get_class_from_dynamic_module(reference, str(checkpoint.path), local_files_only=True)


def _unsupported(checkpoint: Checkpoint, why: str) -> BackendUnavailableError:
    import transformers

    return BackendUnavailableError(
        f"transformers {transformers.__version__} cannot build {checkpoint.source}: {why}",
        "Install a transformers that knows the architecture: pip install --upgrade transformers",
    )


def dtype(checkpoint: Checkpoint, config: Any) -> Any:
    """What `dtype="auto"` means: the configuration's, else that of the first stored float."""
    import torch

    if checkpoint.whole_file is not None:
        # No key says in which dtype the model was trained. Nearly all are BF16, and so is the
        # reference that it is held against: in any other, rounding would add to the difference.
        return torch.bfloat16
    if config.dtype is not None:
        return config.dtype
    floats = (i.dtype for i in checkpoint.tensors.values() if i.dtype in {"BF16", "F16"})
    return getattr(torch, TORCH_DTYPES[next(floats, "F32")])
