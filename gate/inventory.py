"""Which modules a checkpoint holds, layer by layer and expert by expert."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import islice

from gate.architecture import EXPERT, LAYER

DECODERS = frozenset(
    {
        "model.layers",
        "layers",
        "h",
        "transformer.h",
        "transformer.layers",
        "transformer.blocks",
        "transformer.encoder.layers",
        "gpt_neox.layers",
        "backbone.layers",
        "model.decoder.layers",
        "model.text_model.layers",
        "model.language_model.layers",
        "language_model.layers",
        "language_model.model.layers",
        "language_model.backbone.layers",
        "llm.model.layers",
    }
)
"""Where the layers of a language model lie: beside them a checkpoint may hold those of a vision or
audio model, of a speech decoder or of a draft model."""

HEADS = frozenset({"lm_head", "output", "embed_out", "head", "output_layer"})
"""What models call the layer that turns the last hidden state into logits."""

EMBEDDINGS = (
    "embed_tokens",
    "wte",
    "word_embeddings",
    "tok_embeddings",
    "embed",
    "embeddings",
    "embedding",
    "embed_in",
)
"""What models call the token embedding."""

MOST_NAMED = 5
"""Numbers that a message lists."""

DRAFTS = ("mtp", "nextn")
"""Parts of a module's name that predicts tokens beyond the next (MTP)."""


class Inventory:
    """The modules of a checkpoint, found in one pass over the names of its tensors.

    Attributes:
        stacks: Prefix of numbered layers, such as `model.layers`, to the layer's number, to the
            modules below it; an expert's number is written `#`.
        experts: Module that holds numbered experts, to a module in an expert (`up_proj`), to the
            experts that have it.
        outside: Modules that belong to no numbered layer.
    """

    def __init__(self, tensors: Iterable[str]) -> None:
        self.stacks: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        self.experts: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
        self.outside: set[str] = set()
        for module in dict.fromkeys(name.rpartition(".")[0] for name in tensors):
            self._add(module)

    def _add(self, module: str) -> None:
        # bitsandbytes and others hang what belongs to a weight below it.
        module = module.partition(".weight")[0]
        layer = LAYER.search(dotted := f"{module}.")
        if layer is None:
            self.outside.add(module)
            return
        prefix, below = module[: layer.start(1) - 1], module[layer.end() :]
        if ".experts." in module and (expert := EXPERT.search(dotted)):
            inner = module[expert.end() :]
            self.experts[module[: expert.start(1) - 1]][inner].add(int(expert[1][:9]))
            below = f"{module[layer.end() : expert.start(1)]}#.{inner}"
        self.stacks[prefix][int(layer[1][:9])].add(below)

    @cached_property
    def decoder(self) -> str | None:
        """The prefix of the language model's layers; None where it cannot be told."""
        found = self.stacks.keys() & DECODERS
        return next(iter(found)) if len(found) == 1 else None

    @property
    def layers(self) -> Mapping[int, set[str]]:
        """The language model's layers; empty where they cannot be told."""
        return self.stacks[self.decoder] if self.decoder is not None else {}

    @cached_property
    def roots(self) -> tuple[str, ...]:
        """Every module around the language model's layers with its dot, the outermost ("") last."""
        parts = (self.decoder or "").split(".")[:-1]
        return (*(f"{'.'.join(parts[:end])}." for end in range(len(parts), 0, -1)), "")

    @cached_property
    def embedding(self) -> str | None:
        """The language model's token embedding."""
        root = self.roots[0]
        return next((root + leaf for leaf in EMBEDDINGS if root + leaf in self.outside), None)

    @cached_property
    def heads(self) -> tuple[str, ...]:
        """Modules outside the layers that are called as heads are."""
        return tuple(
            sorted(module for module in self.outside if module.rpartition(".")[2] in HEADS)
        )

    def drafts(self, layers: int) -> bool:
        """Whether modules for multi-token prediction are stored.

        Args:
            layers: Of the model without them: some models number them past its end.
        """
        past = any(index >= layers for index in self.layers)
        named = (*self.outside, *self.stacks)
        return past or any(draft in module for module in named for draft in DRAFTS)


def absent(present: Iterable[int], count: int) -> str:
    """Which of 0 to `count` - 1 are not there, in words; "" if none.

    Args:
        present: Those that are.
        count: From a file: it may be absurd.
    """
    there = {number for number in present if 0 <= number < count}
    missing = count - len(there)
    first = islice((number for number in range(count) if number not in there), MOST_NAMED)
    words = ", ".join(str(number) for number in first)
    return f"{words} and {missing - MOST_NAMED:,} more" if missing > MOST_NAMED else words
