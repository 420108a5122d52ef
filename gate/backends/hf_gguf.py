"""A GGUF file as a transformers model: its configuration, and what its parameters are made of.

llama.cpp's converter renames tensors and changes some: it permutes the rows of Llama's queries and
keys, adds 1 to Gemma's norms, splits fused experts. transformers knows how to undo that; it is
given one decoded tensor at a time.

Source: https://github.com/huggingface/transformers (`modeling_gguf_pytorch_utils.py`).
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gate import ggml
from gate.backends import hf_rope
from gate.checkpoint import Checkpoint, TensorInfo
from gate.codes import decode_float
from gate.errors import BackendUnavailableError, CheckpointError
from gate.quantization import Format, QuantizedLayer, Role

if TYPE_CHECKING:
    import torch

ARCHITECTURES: Mapping[str, str] = {
    "llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3moe": "qwen3_moe",
    "gemma2": "gemma2",
}  # fmt: skip
"""Architecture to transformers' model type: those that a test holds to the original's logits.

transformers lists more; in some it leaves out what the file says, and loads another model."""

HEEDED: Mapping[str, Mapping[str, str]] = {
    "qwen3_moe": {"expert_feed_forward_length": "moe_intermediate_size"},
    "gemma2": {
        "attn_logit_softcapping": "attn_logit_softcapping",
        "final_logit_softcapping": "final_logit_softcapping",
    },
}
"""By model type, keys to fields of the configuration that transformers leaves at its defaults."""

REQUIRED = (
    "block_count", "embedding_length", "feed_forward_length", "attention.head_count",
    "attention.layer_norm_rms_epsilon",
)  # fmt: skip
"""Keys without which llama.cpp loads nothing."""

GEMMA2_27B_LAYERS = 46
"""By which llama.cpp knows the model whose attention is scaled by another figure."""

IMMATERIAL = frozenset(
    {
        "context_length",
        "vocab_size",
        "rope.scaling.finetuned",
        "rope.scaling.original_context_length",
    }
)
"""Keys without which the same is computed."""

EMBEDDING, HEAD = "token_embd.weight", "output.weight"

VALUE_MAX_CHARS = 60


def config(checkpoint: Checkpoint) -> Any:
    """The configuration that the keys state, each of them heeded.

    Raises:
        BackendUnavailableError: The file is no language model that transformers loads from GGUF,
            or a key says what transformers would not do.
    """
    from transformers import AutoConfig
    from transformers.integrations import ggml as tables

    theirs: Any = tables
    architecture, model_type = _architecture(checkpoint)
    read: Mapping[str, Any] = theirs.GGUF_CONFIG_MAPPING[model_type]
    names = {key: name for key, name in read.items() if name is not None}
    names |= HEEDED.get(model_type, {})
    names.pop("rope.dimension_count", None)  # not always the width of a head
    names["attention.key_length"] = "head_dim"
    stated = _stated(checkpoint, architecture)
    _require_figures(checkpoint, architecture, stated)
    values: dict[str, Any] = dict(theirs.GGUF_CONFIG_DEFAULTS_MAPPING.get(model_type, {}))
    values |= {names[key]: value for key, value in stated.items() if key in names}
    # What llama.cpp takes where the file says nothing.
    values.setdefault("rope_theta", hf_rope.DEFAULT_BASE)
    values.setdefault("num_key_value_heads", values.get("num_attention_heads"))
    embedding = checkpoint.tensors.get(EMBEDDING)
    if embedding is not None:
        values["vocab_size"] = embedding.shape[0]
    # Of all the files of a series: transformers looks into the first.
    values["tie_word_embeddings"] = HEAD not in checkpoint.tensors
    found = AutoConfig.for_model(model_type, **values)
    if model_type == "gemma2":
        whole = found.num_hidden_layers == GEMMA2_27B_LAYERS
        width = found.hidden_size // found.num_attention_heads if whole else found.head_dim
        found.query_pre_attn_scalar = width
    hf_rope.scale(checkpoint, found)
    for key, value in stated.items():
        if key not in names and key not in IMMATERIAL and value != _computed(found, key):
            told = f"{value!r}"[:VALUE_MAX_CHARS]
            raise unread(checkpoint, f"its key {architecture}.{key}, which is {told}")
    return found


def _require_figures(checkpoint: Checkpoint, architecture: str, stated: Mapping[str, Any]) -> None:
    for key in REQUIRED:
        if key not in stated:
            raise CheckpointError(
                f"{checkpoint.source} has no {architecture}.{key}", "Convert the model again."
            )
    blocks = stated["block_count"]
    if type(blocks) is not int or blocks > len(checkpoint.tensors):
        # Some configurations list them all.
        raise CheckpointError(
            f"{checkpoint.source} states {str(blocks)[:VALUE_MAX_CHARS]} blocks and holds "
            f"{len(checkpoint.tensors):,} tensors",
            "Convert the model again.",
        )


def _architecture(checkpoint: Checkpoint) -> tuple[str, str]:
    """The file's architecture, and transformers' name for it."""
    metadata = checkpoint.metadata
    name = str(metadata.get("general.architecture"))[:VALUE_MAX_CHARS]
    if not ggml.is_model(metadata):
        kind = str(metadata.get("general.type", "model"))[:VALUE_MAX_CHARS]
        raise BackendUnavailableError(
            f"{checkpoint.source} is no language model: its type is {kind!r}, its architecture "
            f"{name!r}",
            "Name the GGUF file of the language model that it belongs to.",
        )
    if name not in ARCHITECTURES:
        raise BackendUnavailableError(
            f"GGUF files of architecture {name!r} are not evaluated in the reference backend: "
            f"only {', '.join(ARCHITECTURES)} are known to load there as they were converted",
            "Judge it with backend: server and llama.cpp's own server, or statically with gate "
            "lint.",
        )
    return name, ARCHITECTURES[name]


def _stated(checkpoint: Checkpoint, architecture: str) -> dict[str, Any]:
    """What the keys below an architecture's name say."""
    prefix = f"{architecture}."
    return {
        key.removeprefix(prefix): value
        for key, value in checkpoint.metadata.items()
        if key.startswith(prefix)
    }


def _computed(config: Any, key: str) -> Any:
    """What the model computes with where transformers does not read a key; None if unknown."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = {"attention.value_length": head, "rope.dimension_count": head}
    return heads.get(key, "none" if key == "rope.scaling.type" else None)


def unread(checkpoint: Checkpoint, what: str) -> BackendUnavailableError:
    """The error for something in a file that would be passed over, and so change the model."""
    return BackendUnavailableError(
        f"{checkpoint.source} would be loaded as another model: transformers does not read {what}",
        "Judge it with backend: server and llama.cpp's own server, or statically with gate lint.",
    )


def parameters(
    checkpoint: Checkpoint, form: Format | None, model_class: Any, config: Any
) -> "Parameters | None":
    """What a model's parameters are made of, where the names in the file are llama.cpp's."""
    if checkpoint.whole_file is None or form is None:
        return None
    return Parameters(checkpoint, form, model_class, config)


class Parameters:
    """The parameters of a model, each made of one or several tensors of a GGUF file.

    Args:
        checkpoint: The file or the series.
        form: Its format.
        model_class: transformers' own.
        config: From `config`.

    Attributes:
        shapes: Parameter to its shape.
        sources: Parameter to the tensors that it is made of.

    Raises:
        BackendUnavailableError: A tensor is none of the model's.
        CheckpointError: Some of the tensors of a parameter are not stored.
    """

    def __init__(self, checkpoint: Checkpoint, form: Format, model_class: Any, config: Any) -> None:
        import torch
        from transformers import modeling_gguf_pytorch_utils

        theirs: Any = modeling_gguf_pytorch_utils
        self._checkpoint, self._form = checkpoint, form
        name = str(checkpoint.metadata["general.architecture"])
        processor = theirs.TENSOR_PROCESSORS.get(name, theirs.TensorProcessor)
        self._processor = processor(config=config.to_dict())
        with torch.device("meta"):
            model = model_class(config)
        self._targets = theirs.get_gguf_hf_weights_map(model, self._processor)
        self._layers: dict[str, QuantizedLayer] = {
            layer.tensors[Role.WEIGHT].name: layer
            for layer in form.layers(checkpoint)
            if layer.packed
        }
        self.sources = self._found()
        state = model.state_dict()
        self.shapes = {name: tuple(state[name].shape) for name in self.sources}

    def nbytes(self, parameter: str) -> int:
        """Bytes that it takes in the file."""
        return sum(info.nbytes for info in self.sources[parameter])

    def read(self, parameter: str, dtype: "torch.dtype") -> "torch.Tensor":
        """Its values, in the shape that the model has for it; they are computed in float32.

        Raises:
            CheckpointError: The tensors have other shapes.
            UnknownFormatError: One of them cannot be decoded.
        """
        import torch

        # transformers joins what makes up one parameter in here.
        joined: dict[str, Any] = {"tensors": {}}
        for info in self.sources[parameter]:
            made = self._processor.process(
                self._values(info),
                info.name,
                tensor_key_mapping=self._targets,
                parsed_parameters=joined,
            )
            if made.name is not None:
                joined["tensors"][parameter] = torch.from_numpy(np.ascontiguousarray(made.weights))
        found: torch.Tensor = joined["tensors"][parameter]
        if tuple(found.shape) != self.shapes[parameter]:
            raise CheckpointError(
                f"{info.name} makes a weight of shape {tuple(found.shape)}, and {parameter} has "
                f"{self.shapes[parameter]}",
                "Convert the model again.",
            )
        return found.to(dtype)

    def _found(self) -> dict[str, tuple[TensorInfo, ...]]:
        """Which tensors each parameter is made of: every stored one belongs to a parameter."""
        found: dict[str, list[TensorInfo]] = defaultdict(list)
        for info in self._checkpoint.tensors.values():
            base = f"{info.name.rpartition('.')[0]}.weight"
            if info.name == hf_rope.FREQUENCIES:
                continue  # in the configuration
            if self._form.is_companion(info.name) and base in self._layers:
                continue
            target = self._target(info.name)
            if target is None:
                raise unread(self._checkpoint, f"its tensor {info.name}")
            found[target].append(info)
        wanted: dict[str, int] = defaultdict(int)
        for target in self._targets.values():
            wanted[target] += 1
        for target, infos in found.items():
            if len(infos) != wanted[target]:
                raise CheckpointError(
                    f"{self._checkpoint.source} has {len(infos)} of the {wanted[target]} tensors "
                    f"that {target} is made of: {', '.join(info.name for info in infos)}",
                    "Convert the model again.",
                )
        return {target: tuple(infos) for target, infos in found.items()}

    def _target(self, tensor: str) -> str | None:
        """The parameter that a tensor belongs to; experts' have no suffix in the model."""
        found = self._targets.get(tensor) or self._targets.get(tensor.removesuffix(".weight"))
        return found if found is None else str(found)

    def _values(self, info: TensorInfo) -> np.ndarray:
        """A stored tensor: float32."""
        layer = self._layers.get(info.name)
        if layer is not None:
            values: np.ndarray = self._form.dequantize(layer, np)
            return values
        if info.dtype not in ggml.FLOATS:
            raise CheckpointError(
                f"{info.name} is stored as {info.dtype}, which is no weight",
                "Validate the checkpoint first: gate lint " + self._checkpoint.source,
            )
        decoded: np.ndarray = decode_float(self._checkpoint.read(info), info.dtype, np)
        return decoded
