"""What a model is made of, told by its configuration and by the names of its modules."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from typing import Any, TypeVar

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


@lru_cache(maxsize=1 << 16)
def template(name: str) -> str:
    """A name with its numbers left out: the same for every layer and expert."""
    return re.sub(r"\d+", "#", name)


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


class Architecture:
    """The figures of config.json, those of the language model where it is multimodal.

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
    def tied(self) -> bool | None:
        """Whether the head is the embedding; None where config.json leaves it to the class."""
        for config in (self._whole, self._config):
            if isinstance(value := config.get("tie_word_embeddings"), bool):
                return value
        return None
