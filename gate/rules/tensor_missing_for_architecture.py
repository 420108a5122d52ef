"""Rule tensor-missing-for-architecture."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from gate import ggml
from gate.architecture import template
from gate.records import Finding
from gate.rule import Evidence, Rule

BLOCK = re.compile(r"((?:enc\.|dec\.)?blk)\.(\d{1,6})\.(.+)")

PLAIN = frozenset(
    {"llama", "mistral3", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "gemma", "gemma2", "gemma3"}
)
"""Architectures of which llama.cpp asks the same tensors of every block."""
AROUND = ("token_embd.weight", "output_norm.weight")
NORMS = ("attn_norm.weight", "ffn_norm.weight", "attn_output.weight")
KINDS_MAX = 16
"""Kinds of blocks in one model that are told apart."""
FIX = "Convert the model again, or download its files again."

Blocks = Mapping[int, frozenset[str]]


class TensorMissingForArchitecture(Rule):
    """A GGUF file lacks a tensor that its architecture needs.

    Flags:
        A number below block_count under which nothing is stored; a block that lacks tensors which
        all others of its kind have, or which llama.cpp asks of every block of this architecture;
        no token_embd, no output_norm. Kinds are told by what is stored, so that attention, Mamba
        and expert blocks may differ; blocks that predict further tokens may be left out.
    Why:
        llama.cpp stops at the first tensor that it does not find.
    Repair:
        Convert the model again with the convert_hf_to_gguf.py that fits the runtime.
    Source:
        https://github.com/ggml-org/llama.cpp/issues/7457
        and https://github.com/ggml-org/llama.cpp/issues/27349
    """

    formats = frozenset({"gguf"})
    complete = True

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One finding for all missing blocks, and one a block that lacks something."""
        checkpoint = evidence.checkpoint
        metadata = checkpoint.metadata
        name = metadata.get("general.architecture")
        if checkpoint.broken_files or not isinstance(name, str) or not ggml.is_model(metadata):
            return
        plain = name in PLAIN
        for tensor in AROUND if plain else ():
            if tensor not in checkpoint.tensors:
                yield self.finding(f"there is no {tensor}", FIX, tensor=tensor)
        stacks = _stacks(checkpoint.tensors)
        for prefix, key in (("blk", "block_count"), ("dec.blk", "decoder_block_count")):
            count = metadata.get(f"{name}.{key}")
            further = metadata.get(f"{name}.nextn_predict_layers", 0)
            if type(count) is int and type(further) is int and prefix in stacks:
                yield from self._missing_blocks(prefix, stacks[prefix], count, count - further)
        for prefix, blocks in stacks.items():
            found = dict(_incomplete(blocks))
            if plain and prefix == "blk":
                found |= {
                    index: lacking for index in blocks if (lacking := _lacking(blocks[index]))
                }
            for index, missing in sorted(found.items()):
                first, *rest = sorted(missing)
                yield self.finding(
                    f"{prefix}.{index} has no {first}"
                    + (f" nor {len(rest)} other tensors" if rest else "")
                    + ", as the other blocks have",
                    FIX,
                    tensor=f"{prefix}.{index}.{first}",
                )

    def _missing_blocks(
        self, prefix: str, blocks: Blocks, count: int, needed: int
    ) -> Iterator[Finding]:
        # A count from the file may be absurd: look at what is stored, not at every number.
        present = sum(index < needed for index in blocks)
        if present >= needed:
            return
        first = next(index for index in range(needed) if index not in blocks)
        yield self.finding(
            f"{count:,} blocks are declared; {needed - present:,} are not stored, "
            f"{prefix}.{first} for one",
            FIX,
            tensor=f"{prefix}.{first}",
        )


def _stacks(tensors: Mapping[str, object]) -> Mapping[str, Blocks]:
    """Prefix of numbered blocks to each block's number, to the tensors below it."""
    found: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in tensors:
        if match := BLOCK.fullmatch(name):
            # Experts that are stored one by one count as one.
            found[match[1]][int(match[2])].add(template(match[3]))
    return {
        prefix: {index: frozenset(leaves) for index, leaves in blocks.items()}
        for prefix, blocks in found.items()
    }


def _incomplete(blocks: Blocks) -> Iterator[tuple[int, frozenset[str]]]:
    """Single blocks, neither first nor last, that lack what a whole kind of them has."""
    kinds = Counter(blocks.values())
    single = [index for index in sorted(blocks) if kinds[blocks[index]] == 1]
    common = sorted((kind for kind, count in kinds.items() if count > 1), key=len)
    if len(single) * 4 > len(blocks) or len(common) > KINDS_MAX:  # each block has its own design
        return
    last = max(blocks)
    for index in single:
        larger = next((kind for kind in common if blocks[index] < kind), None)
        if larger and 0 < index < last:
            yield index, larger - blocks[index]


def _lacking(block: frozenset[str]) -> frozenset[str]:
    """What a block of a plain architecture needs and has not."""
    wanted = set(NORMS)
    if "attn_qkv.weight" not in block:
        wanted |= {"attn_q.weight", "attn_k.weight", "attn_v.weight"}
    if "ffn_gate_inp.weight" not in block:
        wanted |= {"ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"}
    elif not {"ffn_gate.#.weight", "ffn_gate_up_exps.weight"} & block:
        wanted |= {"ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight"}
    return frozenset(wanted - block)
