"""Rule layer-missing."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import ClassVar

from gate.inventory import absent
from gate.records import Finding
from gate.rule import Evidence, Rule

DEPTHS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
IRREGULAR = ("block_configs", "is_encoder_decoder", "num_kv_shared_layers", "drop_attn_list")
"""Fields of models in which layers may lack what the others have, or have no tensors at all."""

MOST_KINDS = 16
"""Of layers in one model: hybrids have two to four."""


class LayerMissing(Rule):
    """A decoder layer, or a module of it, is not stored.

    Flags:
        A number below num_hidden_layers under which nothing is stored; a single layer that lacks a
        module which all others of its kind have. Kinds are told by what is stored, so that
        attention, Mamba and MoE layers may differ; the first and the last layer, which some models
        build otherwise, are not compared, nor are models of which each layer has its own design.
    Why:
        vLLM does not check for missing weights of a quantized model: the layer computes with
        whatever the memory held.
    Repair:
        Export again; compare the sizes of the shards with the original's.
    Source:
        https://github.com/vllm-project/vllm/pull/34930
    """

    complete: ClassVar[bool] = True

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding for all missing layers, and one a layer that lacks something."""
        layers, config = evidence.inventory.layers, evidence.checkpoint.text_config
        # Some configurations count attention blocks in one field and layers in another.
        depths = [value for name in DEPTHS if (value := evidence.architecture.number(name))]
        irregular = any(config.get(field) for field in IRREGULAR)
        if not layers or not depths or irregular or evidence.checkpoint.broken_files:
            return
        depth = min(depths)
        if missing := absent(layers, depth):
            yield self.finding(
                f"config.json says {depth:,} layers; nothing is stored of layer {missing} "
                f"({evidence.inventory.decoder}.N)",
                "Export again, or upload the missing shards.",
                file="config.json",
            )
        for index, lacking in _incomplete({i: layers[i] for i in layers if i < depth}):
            first, *rest = sorted(lacking)
            others = f" nor {len(rest)} other modules" if rest else ""
            name = f"{evidence.inventory.decoder}.{index}.{first}"
            yield self.finding(
                f"layer {index} has no {first}{others}, as all other layers of its kind have",
                "Export again, or upload the missing shards.",
                tensor=name,
            )


def _incomplete(layers: Mapping[int, set[str]]) -> Iterator[tuple[int, set[str]]]:
    """Layers of which no other is like, and what they lack of the nearest kind."""
    kinds = Counter(frozenset(modules) for modules in layers.values())
    common = [kind for kind, count in kinds.items() if count > 1]
    single = [index for index in sorted(layers) if kinds[frozenset(layers[index])] == 1]
    if len(single) * 4 > len(layers) or len(common) > MOST_KINDS:  # each has its own design
        return
    for index in single:
        larger = [kind for kind in common if layers[index] < kind]
        if larger and 0 < index < max(layers):
            yield index, set(min(larger, key=len) - layers[index])
