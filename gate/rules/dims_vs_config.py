"""Rule dims-vs-config."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from gate.architecture import Architecture
from gate.checkpoint import Checkpoint, TensorInfo
from gate.quantization import FLOAT_DTYPES, QuantizedLayer, Role
from gate.records import Finding
from gate.rule import Evidence, Rule

Shape = tuple[int, int]
Place = tuple[str, str]

PLAIN = frozenset(
    {"llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "olmo2"}
)
"""Values of model_type whose layers have the shapes below, the same in every decoder layer."""

STATES_HEAD_DIM = frozenset({"qwen3", "qwen3_moe", "smollm3"})
"""Those of them whose head_dim, if left out, is not hidden_size divided by the heads."""

EXPERT = "#"
"""Stands for an expert's number in the name of a module."""


class DimsVsConfig(Rule):
    """A layer has other dimensions than config.json says.

    Flags:
        Attention and MLP layers, experts, embedding and head of Llama-like models whose shape, as
        the model counts it, is not the one that hidden_size, intermediate_size, the heads and
        head_dim give. Models whose layers differ among themselves are not meant.
    Why:
        The weight was transposed, packed twice, or belongs to another model: runtimes stop, or
        multiply what happens to fit.
    Repair:
        Export again, or restore the config.json that belongs to these weights.
    Source:
        https://github.com/vllm-project/vllm/pull/50610
    """

    complete: ClassVar[bool] = True

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding a tensor."""
        wanted = _wanted(evidence.architecture)
        if not wanted or not _is_whole_model(evidence.checkpoint.config):
            return
        for layer in evidence.layers:
            right = wanted.get(_place(layer.name))
            if right and (shape := _stored(layer)) and shape != right:
                yield self._wrong(layer.tensors[Role.WEIGHT], shape, right)
        yield from self._ends(evidence.checkpoint, evidence.architecture.hidden)

    def _ends(self, checkpoint: Checkpoint, hidden: int | None) -> Iterator[Finding]:
        """Embedding and head, whose rows another rule counts."""
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            info = checkpoint.tensors.get(name)
            if info is None or info.dtype not in FLOAT_DTYPES or len(info.shape) != 2 or not hidden:
                continue
            if info.shape[1] != hidden:
                yield self._wrong(info, (info.shape[0], info.shape[1]), (info.shape[0], hidden))

    def _wrong(self, info: TensorInfo, shape: Shape, wanted: Shape) -> Finding:
        how = ""
        if shape == wanted[::-1]:
            how = ": it is transposed"
        elif shape in ((wanted[0], wanted[1] // 2), (wanted[0] // 2, wanted[1])):
            how = ": it is packed twice"
        return self.finding(
            f"{info.name} has {shape[0]:,} outputs and {shape[1]:,} inputs; config.json gives "
            f"{wanted[0]:,} and {wanted[1]:,}{how}",
            "Export again, or restore the config.json that belongs to these weights.",
            tensor=info.name,
            file=info.file,
        )


def _is_whole_model(config: Mapping[str, Any]) -> bool:
    """Whether it is no draft model (EAGLE), whose layers take wider inputs."""
    classes = config.get("architectures")
    named = [name for name in classes if isinstance(name, str)] if isinstance(classes, list) else []
    return all(name.endswith("ForCausalLM") for name in named)


def _place(module: str) -> Place:
    """The last two parts of a module's name, an expert's number left out."""
    parent, _, leaf = module.rpartition(".")
    parent = parent[parent.rfind(".") + 1 :]
    return EXPERT if parent.isdecimal() else parent, leaf


def _stored(layer: QuantizedLayer) -> Shape | None:
    """(outputs, inputs); None where they cannot be told."""
    weight, wanted = layer.tensors.get(Role.WEIGHT), layer.expected.get(Role.WEIGHT)
    if weight is None or (wanted and weight.dtype not in wanted.dtypes):
        return None
    shape = layer.shape
    if shape is None and weight.dtype in FLOAT_DTYPES and len(layer.tensors) == 1:
        shape = weight.shape
    return (shape[0], shape[1]) if shape is not None and len(shape) == 2 else None


def _wanted(model: Architecture) -> Mapping[Place, Shape]:
    """What config.json says of each layer; nothing for an architecture that is not plain."""
    heads, kv_heads = model.number("num_attention_heads"), model.number("num_key_value_heads")
    stated = model.number("head_dim")
    hidden, inner = model.hidden, model.number("intermediate_size")
    if model.model_type not in PLAIN or not (hidden and heads and kv_heads and inner):
        return {}
    if stated is None and (model.model_type in STATES_HEAD_DIM or hidden % heads):
        return {}
    width = stated or hidden // heads
    found = {
        ("self_attn", "q_proj"): (heads * width, hidden),
        ("self_attn", "k_proj"): (kv_heads * width, hidden),
        ("self_attn", "v_proj"): (kv_heads * width, hidden),
        ("self_attn", "o_proj"): (hidden, heads * width),
    }
    expert, shared = model.number("moe_intermediate_size"), "shared_expert_intermediate_size"
    if model.model_type == "mixtral":
        expert = inner
    for parent, size in (("mlp", inner), (EXPERT, expert), ("shared_expert", model.number(shared))):
        if size:
            found |= {(parent, leaf): (size, hidden) for leaf in ("gate_proj", "up_proj")}
            found |= {(parent, leaf): (size, hidden) for leaf in ("w1", "w3")}
            found |= {(parent, leaf): (hidden, size) for leaf in ("down_proj", "w2")}
    return found
