"""Rule exclude-pattern-unused."""

from collections.abc import Iterable, Iterator
from typing import ClassVar

from gate.architecture import layer_index, text_name
from gate.modules import ModuleNames, with_ancestors
from gate.records import Finding, Severity
from gate.rule import Evidence, Rule

NOT_STORED = frozenset(
    {
        "mtp", "visual", "vision_tower", "vision_model", "audio_tower",
        "rotary_emb", "act_fn", "act", "attn",
    }
)  # fmt: skip
"""Parts that an export may leave out, and modules without parameters."""


class ExcludePatternUnused(Rule):
    """An excluded module does not exist.

    Flags:
        Entries of exclude_modules or ignore that name no stored module; a warning where the entry
        names a decoder layer that is stored. A tied head that is excluded is no such entry.
    Why:
        Usually harmless: exporters list parts that were left out. A wrong prefix or a typing
        error, though, leaves the module that was meant to be quantized by runtimes.
    Repair:
        Compare the entry with the names of the stored tensors.
    Source:
        https://github.com/NVIDIA/Model-Optimizer/pull/479
    """

    severity: ClassVar[Severity] = "note"
    formats: ClassVar[frozenset[str]] = frozenset({"modelopt"})
    complete: ClassVar[bool] = True

    def check_checkpoint(self, evidence: Evidence) -> Iterator[Finding]:
        """One warning an entry, one note for all others."""
        checkpoint = evidence.checkpoint
        declared = evidence.declarations
        if not checkpoint.tensors or checkpoint.broken_files or not declared:
            return
        listed = {entry: file.file for file in declared for entry in file.exclude_modules or ()}
        if not listed:
            return
        modules = {name.rpartition(".")[0] for name in checkpoint.tensors}
        untied = evidence.architecture.tied is False
        unused = [
            entry for entry in _absent(listed, modules) if untied or not entry.startswith("lm_head")
        ]
        stored = {layer_index(f"{name}.") for name in modules} if unused else set()
        wrong = [entry for entry in unused if _is_wrong(entry, stored)]
        for entry in wrong:
            yield self.finding(
                f"{listed[entry]} excludes {entry}, which names no stored module, though the "
                "layer is stored",
                "Correct the entry after the names of the stored tensors.",
                tensor=entry,
                file=listed[entry],
                severity="warning",
            )
        if others := sorted(set(unused) - set(wrong)):
            yield self.finding(
                f"{len(others):,} excluded modules are not stored: {', '.join(others[:3])}",
                "Remove the entries, unless another runtime needs them.",
                file=listed[others[0]],
            )


def _absent(entries: Iterable[str], modules: set[str]) -> list[str]:
    """The entries that name no module, and no module around one; none that cannot be judged."""
    names = ModuleNames(modules)
    left = [entry for entry in entries if not names.named(entry)]
    if left:
        # Seldom needed, and longer to make than everything else.
        names = ModuleNames(with_ancestors(modules | set(map(text_name, modules))))
        left = [
            entry for entry in left if not (names.named(entry) or names.named(text_name(entry)))
        ]
    return [] if names.unjudged else left


def _is_wrong(entry: str, stored: set[int | None]) -> bool:
    """Whether an entry that names nothing names a part of a stored decoder layer."""
    index = layer_index(f"{entry.rstrip('*').rstrip('.')}.")
    parts = entry.rstrip("*").rstrip(".").split(".")
    return index is not None and index in stored and NOT_STORED.isdisjoint(parts)
