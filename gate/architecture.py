"""What a model is made of, told by its configuration and by the names of its modules."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sized
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from gate.checkpoint import Checkpoint

T = TypeVar("T")

LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks?|blk|layer)\.(\d+)\.")
"""The first such part numbers the decoder layer."""
EXPERT = re.compile(r"\.experts\.(\d+)\.")

FUSED = (
    ("q_proj", "k_proj", "v_proj"),
    ("gate_proj", "up_proj"),
    ("w1", "w3"),
    ("q_a_proj", "kv_a_proj_with_mqa"),
)
"""Linear layers that runtimes join into one, by leaf name.

Source: https://github.com/vllm-project/vllm (`packed_modules_mapping` of its models).
"""
_GROUP_OF = {leaf: group for group in FUSED for leaf in group}

EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""What configurations call the number of routed experts."""


LANGUAGE_MODELS = ("model.language_model.", "language_model.model.")
"""How multimodal models begin the names of the language model's modules, in place of `model.`."""

NOT_QUANTIZED = re.compile(
    r"(^|\.)(gate|router|shared_expert_gate|visual|vision_tower|vision_model)(\.|$)"
    r"|(^|[._])(embed\w*|embeddings?|wte|wpe|\w*norm\w*|ln_\w+|conv\w*|rotary\w*)(\.|$)"
)
"""Modules that runtimes keep in high precision whether or not they are excluded."""


@lru_cache(maxsize=1 << 16)
def template(name: str) -> str:
    """A name with its numbers left out: the same for every layer and expert."""
    return re.sub(r"\d+", "#", name)


def text_name(module: str) -> str:
    """The name of a language model's module, or a pattern of such, as in a model of text only."""
    for prefix in LANGUAGE_MODELS:
        if module.startswith(prefix):
            rest = module[len(prefix) :]
            # `language_model.*` leaves out the language model, not everything.
            return f"model.{rest}" if rest[:1].isalnum() else module
    rest = module.removeprefix("language_model.")
    return rest if rest[:1].isalnum() else module


def layer_index(name: str) -> int | None:
    """The decoder layer that a module or tensor belongs to."""
    found = LAYER.search(name)
    return int(found[1][:9]) if found else None


def expert_index(name: str) -> int | None:
    """The routed expert that a module or tensor belongs to."""
    found = EXPERT.search(name)
    return int(found[1][:9]) if found else None


def fused(modules: Mapping[str, T]) -> Iterable[tuple[T, ...]]:
    """Siblings that runtimes join into one linear layer, at least two of them at a time."""
    groups: dict[tuple[str, tuple[str, ...]], list[T]] = defaultdict(list)
    for name, module in modules.items():
        parent, _, leaf = name.rpartition(".")
        if leaf in _GROUP_OF:
            groups[parent, _GROUP_OF[leaf]].append(module)
    return (tuple(found) for found in groups.values() if len(found) > 1)


GGUF_FIGURES = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "moe_intermediate_size": "expert_feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "max_position_embeddings": "context_length",
    "sliding_window": "attention.sliding_window",
    "kv_lora_rank": "attention.kv_lora_rank",
    "qk_rope_head_dim": "rope.dimension_count",
    "num_nextn_predict_layers": "nextn_predict_layers",
}
"""Figure of config.json to the key of a GGUF file, below its architecture's name."""


def of_gguf(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a GGUF file's keys say of its model, with the names that config.json has for it.

    A figure that differs between layers is the largest of them.

    Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    """
    name = metadata.get("general.architecture")
    if not isinstance(name, str):
        return {}
    config: dict[str, Any] = {"model_type": name}
    for figure, key in GGUF_FIGURES.items():
        value = metadata.get(f"{name}.{key}")
        if isinstance(value, list) and value and all(type(item) is int for item in value):
            value = max(value)
        if value is not None:
            config[figure] = value
    if "kv_lora_rank" not in config:
        config.pop("qk_rope_head_dim", None)
    tokens = metadata.get("tokenizer.ggml.tokens")
    config["vocab_size"] = (
        len(tokens) if isinstance(tokens, Sized) else metadata.get(f"{name}.vocab_size")
    )
    return config


def architecture(checkpoint: "Checkpoint") -> "Architecture":
    """What config.json says of the model; of a GGUF file, its own keys."""
    if checkpoint.whole_file is not None:
        return Architecture(of_gguf(checkpoint.metadata))
    return Architecture(checkpoint.config)


class Architecture:
    """The figures of config.json or `of_gguf`, the language model's where it is multimodal.

    A figure that is absent, or no positive integer, is None.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        nested = config.get("text_config")
        self._config: Mapping[str, Any] = nested if isinstance(nested, Mapping) else config
        self._whole = config

    def number(self, *names: str) -> int | None:
        """The first of these figures that is given."""
        for name in names:
            value = self._config.get(name)
            if type(value) is int and value > 0:
                return value
        return None

    @cached_property
    def model_type(self) -> str:
        """As config.json has it; "" if it says nothing."""
        value = self._whole.get("model_type")
        return value if isinstance(value, str) else ""

    @cached_property
    def layers(self) -> int | None:
        """Decoder layers."""
        return self.number("num_hidden_layers", "n_layer", "num_layers", "n_layers")

    @cached_property
    def hidden(self) -> int | None:
        """Width of the residual stream."""
        return self.number("hidden_size", "n_embd", "d_model")

    @cached_property
    def experts(self) -> int | None:
        """Routed experts of a layer."""
        return self.number(*EXPERT_COUNTS)

    @cached_property
    def vocabulary(self) -> int | None:
        """Tokens that the model knows."""
        return self.number("vocab_size")

    @cached_property
    def context(self) -> int | None:
        """Tokens that it was made to read at once."""
        return self.number("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")

    @cached_property
    def attention_heads(self) -> int | None:
        """Query heads."""
        return self.number("num_attention_heads", "n_head")

    @cached_property
    def kv_heads(self) -> int | None:
        """Key and value heads."""
        return self.number("num_key_value_heads") or self.attention_heads

    @cached_property
    def head_dim(self) -> int | None:
        """Width of a head."""
        stated = self.number("head_dim")
        if stated or not (self.hidden and self.attention_heads):
            return stated
        return self.hidden // self.attention_heads

    @cached_property
    def layer_types(self) -> tuple[str, ...]:
        """What each decoder layer mixes tokens with, where that is listed; else empty."""
        for name in ("layer_types", "layers_block_type"):
            value = self._config.get(name)
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                return tuple(value)
        pattern = self._config.get("hybrid_override_pattern")
        if isinstance(pattern, str):
            return tuple("full_attention" if mark == "*" else "other" for mark in pattern)
        return ()

    @cached_property
    def window(self) -> int | None:
        """Tokens that a layer of sliding attention looks back to."""
        if self._config.get("use_sliding_window") is False:
            return None
        return self.number("sliding_window", "attention_chunk_size")

    @cached_property
    def tied(self) -> bool | None:
        """Whether the head is the embedding; None where the class decides or config.json wavers."""
        stated = {
            value
            for config in (self._whole, self._config)
            if isinstance(value := config.get("tie_word_embeddings"), bool)
        }
        return stated.pop() if len(stated) == 1 else None
